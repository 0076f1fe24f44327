"""A summary of a data set as plain data: numbers, names and a few images, to be drawn elsewhere.

``overview`` returns a dict:

================  ==================================================================================================
key               meaning
================  ==================================================================================================
``name``          name of the data module's class
``class_names``   names of the K classes; empty where the label is a severity score
``parts``         a dict for each part, empty ones too: ``name``, ``images``, ``patients`` (None where the data set
                  does not list them); ``positives`` and ``unknown``, images of each class and images of which it is not
                  known, (K,), or ``scores``, the severity of each image, or neither without labels; ``boxes``, boxes of
                  each class, (K,), None where not listed
``patients``      patients in all parts together, or None
``sizes``         ``counted`` files whose header was read, of ``files``; ``common``, pairs of (width, height) and how
                  often they occur, most frequent first; ``unreadable``, the errors of unreadable headers
``missing``       ``names`` of images in the table but not on disk, of ``total`` in the table
``notes``         all warnings of the data module, and which splits have patients in common
``disagreement``  what ``rater_disagreement`` of the data module returns, None if it has none
``samples``       a dict for each sample image: ``image_id``, ``part``, ``image`` (grey, float32 (H, W), 0 to 1),
                  ``label`` (words), ``boxes`` (x1, y1, x2, y2 in pixels of ``image``), ``box_names``, ``zones`` (the
                  six scores, or None), ``lungs`` (bool (2, H, W), or None)
``to_decide``     of a table of one's own: sentences that say what a person has to decide or correct
================  ==================================================================================================
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lightning_chex.data.contract import (
    DataError,
    LabelledDataset,
    Samples,
    XrayDataModule,
    check_labels,
    described,
    name_of,
)
from lightning_chex.data.contract_checks import Checked
from lightning_chex.data.images.images import image_size
from lightning_chex.data.sample import severity_of
from lightning_chex.data.splits import shared_patients
from lightning_chex.data.table.files import MissingImagesWarning
from lightning_chex.data.transforms import grey_of

SIZE_LIMIT = 5000
"""Most files whose header is read for the size, evenly spaced: 100,000 take minutes on some disks."""


def overview(module: XrayDataModule, num_samples: int) -> dict[str, Any]:
    """Summarise a data set; of the images only headers and a few samples are read.

    Args:
        module: one whose ``look`` has not been called, or its warnings would be lost.
        num_samples: how many images to read.

    Returns:
        See above.

    Raises:
        DataError: bad files or tables.
        MisconfigurationException: a part without labels.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module.look()
    parts = module.parts()
    class_names = list(module.class_names or ())
    for part, dataset in parts.items():
        check_labels(dataset, f"part {part}", class_names)
    missing = [warning.message for warning in caught if isinstance(warning.message, MissingImagesWarning)]
    of_part = {part: described(dataset).patient_ids for part, dataset in parts.items()}
    patients = list(of_part.values())
    return {
        "name": name_of(module),
        "class_names": class_names,
        "parts": [_part(part, dataset, class_names) for part, dataset in parts.items()],
        "patients": None if None in patients else len({name for names in patients for name in names or ()}),
        "sizes": _sizes(list(parts.values())),
        "missing": {
            "names": [name for warning in missing for name in warning.names],
            "total": sum(warning.total for warning in missing),
        },
        "notes": [
            *(str(w.message) for w in caught if w.category is UserWarning),  # other categories are not for users
            *shared_patients(of_part),
        ],
        "disagreement": module.rater_disagreement(),
        "samples": _samples(module, parts, class_names, num_samples),
    }


def _part(name: str, dataset: LabelledDataset, class_names: Sequence[str]) -> dict[str, Any]:
    known = described(dataset)
    patients = None if known.patient_ids is None else len(set(known.patient_ids))
    part: dict[str, Any] = {"name": name, "images": len(dataset), "patients": patients, "boxes": None}
    if dataset.labels.ndim == 2 and not dataset.labels.shape[1]:
        return part  # a plain folder of images
    if class_names:
        part["positives"] = dataset.labels.nansum(dim=0).long().tolist()
        part["unknown"] = dataset.labels.isnan().sum(dim=0).tolist()
    else:
        part["scores"] = severity_of(dataset.labels).tolist()
    if known.all_box_labels is not None:
        part["boxes"] = torch.bincount(known.all_box_labels, minlength=len(class_names)).tolist()
    return part


def _sizes(datasets: Sequence[LabelledDataset]) -> dict[str, Any]:
    paths = [path for dataset in datasets for path in described(dataset).paths or ()]
    chosen = sorted({int(i) for i in np.linspace(0, len(paths) - 1, min(len(paths), SIZE_LIMIT))})
    sizes: Counter[tuple[int, int]] = Counter()
    unreadable = []
    for i in chosen:
        try:
            sizes[image_size(paths[i])] += 1
        except DataError as error:
            unreadable.append(str(error))
    return {"files": len(paths), "counted": len(chosen), "common": sizes.most_common(), "unreadable": unreadable}


def _samples(
    module: XrayDataModule, parts: Mapping[str, LabelledDataset], class_names: Sequence[str], number: int
) -> list[dict[str, Any]]:
    """The images that are explained at validation, which cover all classes and have the boxes; else any."""
    candidates: list[tuple[str, Samples]] = []
    explained = module.explained_dataset("validate") if len(parts.get("val", ())) else None
    if explained is not None:
        candidates.append(("explained at validation", explained))
    # test images come last: they should not be looked at before the end
    candidates += sorted(parts.items(), key=lambda item: item[0] == "test")
    part, dataset = next(((name, dataset) for name, dataset in candidates if len(dataset)), ("", ()))
    read = Checked(module, dataset, f"images {part}", ("image", "image_id"))
    chosen = (read[i] for i in range(min(number, len(read))))
    # on_unreadable: skip gives None for an image that cannot be read
    samples = [_sample(sample, part, class_names) for sample in chosen if sample is not None]
    if any(sample["boxes"] for sample in samples):  # findings have boxes here, zones no scores
        samples = [{**sample, "zones": None} for sample in samples]
    return samples


def _sample(sample: dict[str, Any], part: str, class_names: Sequence[str]) -> dict[str, Any]:
    label = "not labelled" if "label" not in sample else _in_words(sample["label"], class_names)
    zones = sample.get("zones")
    lungs = sample.get("lung_mask")
    boxes, labels = (sample[key].tolist() if key in sample else [] for key in ("boxes", "box_labels"))
    return {
        "image_id": sample["image_id"],
        "part": part,
        "image": grey_of(sample["image"]).numpy(),
        "label": label,
        "boxes": boxes,
        "box_names": [class_names[i] for i in labels] if class_names and labels else [""] * len(boxes),
        "zones": None if zones is None else zones.tolist(),
        "lungs": None if lungs is None else lungs.numpy(),
    }


def _in_words(label: torch.Tensor, class_names: Sequence[str]) -> str:
    if not class_names:
        return f"severity {severity_of(label[None]).item():g}"
    values = list(zip(class_names, label.reshape(-1).tolist(), strict=False))
    names = [name for name, present in values if present > 0]
    if not names and any(value != value for _, value in values):
        return "none of the classes that are known"
    return ", ".join(names) or "none of the classes"
