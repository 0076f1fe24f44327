"""The one check of what data sets give: every sample as it is read, and the first one of each batch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import Dataset

from lightning_chex.data.contract import PAGE, Samples, XrayDataModule, described, name_of, names_of
from lightning_chex.data.transforms import BoxError, fault_of_box

_IDS = ("image_id", "patient_id")


class Checked(Dataset):
    """Samples, each checked as it is read; numbers become text in ids and float32 in labels, None stays None.

    Args:
        data: whose ``size`` and ``class_names`` hold.
        dataset: the samples; its other attributes are this one's too.
        name: of the dataset, for messages.
        keys: what every sample must have.
    """

    def __init__(self, data: XrayDataModule, dataset: Samples, name: str, keys: Sequence[str] = ()) -> None:
        self.dataset = dataset
        self.name = name
        self._keys = keys
        labels = getattr(dataset, "labels", None)
        label = labels.shape[1:] if isinstance(labels, Tensor) else None
        self._expected = (name_of(data), data.size, len(data.class_names or ()), label)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # while it is unpickled there is none
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        """Read one sample; a MisconfigurationException names what is not as ``data/sample.py`` says."""
        where = f"sample {index} of the {self.name}"
        try:
            sample = self.dataset[index]
        except BoxError as error:
            names = described(self.dataset).image_ids
            name = "" if names is None else f"image {names[index]!r}, "
            raise MisconfigurationException(f"{name}{where}: {error}; see {PAGE}") from error
        if sample is None:
            return None
        if isinstance(sample, Mapping):
            sample = {key: _plain(key, value) for key, value in sample.items()}
            where = f"image {sample['image_id']!r}, {where}," if "image_id" in sample else where
        purpose, size, classes, label = self._expected
        check_sample(sample, self._keys, purpose, where, size, classes, label)
        return sample


def check_sample(
    sample: Any,
    keys: Sequence[str],
    purpose: str,
    where: str = "a sample",
    size: int | None = None,
    classes: int = 0,
    label: Sequence[int] | None = None,
) -> None:
    """Raise a MisconfigurationException unless a sample is as ``data/sample.py`` says, with the keys a purpose needs.

    ``size`` is the side of the images, None for any and any number of channels; ``classes`` their number, 0 where it is
    not known; ``label`` the shape of a label, None for any.
    """
    for fault in _faults(sample, keys, purpose, size, classes, label):
        raise MisconfigurationException(f"{where} {fault}: see {PAGE}")


def check_batch(batch: Any, keys: Sequence[str], purpose: str, size: int | None, label: Sequence[int] | None) -> None:
    """Raise a MisconfigurationException unless the first sample of a batch on the CPU is as `check_sample` asks."""
    if isinstance(batch, Mapping):
        batch = {key: (names_of(batch[key]) if key in _IDS else batch[key])[0] for key in keys if key in batch}
    check_sample(batch, keys, purpose, "the first sample of a batch", size, label=label)


def first_of(dataset: Samples) -> dict[str, Any] | None:
    """Read the first sample that can be read; None where there is none."""
    samples = (dataset[i] for i in range(len(dataset)))
    return next((sample for sample in samples if sample is not None), None)


def _plain(key: str, value: Any) -> Any:
    if key in _IDS and isinstance(value, (int, np.integer)):
        return str(value)
    if key == "label" and isinstance(value, (Tensor, int, float, np.number, np.ndarray)):
        return torch.as_tensor(value).float()
    return value


def _faults(
    sample: Any, keys: Sequence[str], purpose: str, size: int | None, classes: int, label: Sequence[int] | None
) -> Iterator[str]:
    if not isinstance(sample, Mapping):
        yield f"is a {type(sample).__name__}, not a dict with 'image', 'label', 'image_id' and 'patient_id'"
        return
    for key in [*keys, *(["box_labels"] if "boxes" in sample else [])]:
        if key not in sample:
            yield f"has no {key!r}, which {purpose} needs; it has {', '.join(map(repr, sample))}"
    for key in _IDS:
        if not isinstance(sample.get(key, ""), (str, int)):
            yield f"has the {key} {sample[key]!r}, a {type(sample[key]).__name__}: give text"
    own = sample.get("label")
    if "label" in sample and not isinstance(own, Tensor):
        yield f"has a label of type {type(own).__name__}: give a float32 tensor"
    elif own is not None and label is not None and tuple(own.shape) != tuple(label):
        yield f"has a label of shape {tuple(own.shape)}, not {tuple(label)} as a row of labels"
    if "zones" in sample and tuple(getattr(sample["zones"], "shape", ())) != (6,):
        yield f"has zones {_form(sample['zones'])}: give the six Brixia scores, a float32 tensor (6,)"
    if "image" not in sample:
        return
    image = sample["image"]
    wanted = "(C, H, W)" if size is None else f"(3, {size}, {size})"
    remedy_for = f"give a float32 tensor {wanted}, as ImageTransform(size) makes it"
    if not isinstance(image, Tensor) or image.dtype != torch.float32:
        yield f"has an image of type {getattr(image, 'dtype', '')} {type(image).__name__}: {remedy_for}"
    elif image.ndim != 3 or (size is not None and image.shape != (3, size, size)):
        yield f"has an image of shape {tuple(image.shape)}: {remedy_for}"
    elif not image.sum().isfinite() and not image.isfinite().all():  # a sum is faster
        yield f"has an image with {int((~image.isfinite()).sum())} values that are NaN or infinite: {remedy_for}"
    else:
        yield from _faults_of_masks(sample, classes, image.shape[-2:])
    if "boxes" in sample:
        yield from _faults_of_boxes(sample["boxes"], sample["box_labels"], classes, image.shape[-1], image.shape[-2])


def _faults_of_masks(sample: Mapping[str, Any], classes: int, size: torch.Size) -> Iterator[str]:
    for key, least, most in (("lung_mask", 2, 2), ("finding_masks", classes, None)):
        mask = sample.get(key)
        if mask is None:
            continue
        wanted = f"({least or 'K'}, {size[0]}, {size[1]})"
        right = isinstance(mask, Tensor) and mask.ndim == 3 and mask.shape[1:] == size and not mask.is_floating_point()
        if not right or not least <= len(mask) <= (most or len(mask)):
            yield f"has a {key} {_form(mask)}: give a bool tensor {wanted}"


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    return f"of type {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"


def _faults_of_boxes(boxes: Any, labels: Any, classes: int, width: int, height: int) -> Iterator[str]:
    shapes = [tuple(getattr(value, "shape", ())) for value in (boxes, labels)]
    if shapes[0][1:] != (4,) or shapes[1] != shapes[0][:1]:
        yield f"has boxes of shape {shapes[0]} with box_labels of shape {shapes[1]}: give (N, 4) and (N,)"
        return
    for number, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        if fault := fault_of_box(box, width, height):
            yield f"has a bad box, number {number}: {fault}"
        if classes and not 0 <= label < classes:
            yield f"has box_labels of class {label} for box {number}, {box}, but there are {classes} class_names"
