"""The tables of NIH ChestX-ray8 and who goes into which split: pure functions, no image is opened here.

The publisher's test list fixes the test images. Two cuts are ours, both by patient:

- Validation images are drawn from the train_val list with a seed (``cut_validation``).
- All expert boxes lie on test images. Whoever chose settings by looking at the maps on them would tune on the test
  set, so patients with boxes fall into two halves (``in_tuning_half``), the same ones for everybody. The *tuning
  half* is explained at validation, and none of its patients' images is in the test split, boxed or not. The
  *reporting half* stays in the test split and is looked at only there. A test figure therefore stands on somewhat
  fewer images than the publisher's list has.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.errors import DataError
from lightning_chex.data.images import first_few, image_id
from lightning_chex.data.sample import PATHOLOGIES
from lightning_chex.data.tables import read_table

BOX_FRAME = 1024
"""Side in pixels of the publisher's images, in which the boxes are given."""

_OTHER_FINDINGS = frozenset(
    {"No Finding", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"}
)
_SYNONYMS = {"Infiltrate": "Infiltration"}  # the box list's word for it


def read_labels(path: Path) -> pd.DataFrame:
    """Read ``Data_Entry_2017*.csv``.

    Returns:
        Columns ``image_id``, ``patient_id`` (without leading zeros), and one of 0 and 1 for each of ``PATHOLOGIES``.

    Raises:
        DataError: see ``read_table``; or a finding no version of the data set has.
    """
    table = read_table(path, ["Image Index", "Finding Labels", "Patient ID"])
    findings = table["Finding Labels"]
    for word, name in _SYNONYMS.items():
        findings = findings.str.replace(rf"\b{word}\b", name, regex=True)
    unknown = set("|".join(findings.unique()).split("|")) - set(PATHOLOGIES) - _OTHER_FINDINGS
    if unknown:
        raise DataError(f"{path} has findings this data set does not know: {first_few(sorted(map(repr, unknown)))}")
    fenced = "|" + findings + "|"  # so that no name is found inside another
    labels = {name: fenced.str.contains(f"|{name}|", regex=False).astype(np.float32) for name in PATHOLOGIES}
    patients = table["Patient ID"].str.replace(r"^0+(?=\d)", "", regex=True)
    return pd.DataFrame({"image_id": table["Image Index"], "patient_id": patients, **labels})


def read_list(path: Path) -> pd.Series:
    """Read a list of image names, one a line, as image ids.

    Raises:
        DataError: it is no text, or a line is no file name.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path} as a list of image names: {error}") from error
    return pd.Series([image_id(line.strip()) for line in lines if line.strip()], dtype=str)


def read_boxes(path: Path) -> pd.DataFrame:
    """Read ``BBox_List_2017.csv``.

    Returns:
        Columns ``image_id``, ``label`` (index in ``PATHOLOGIES``) and ``x1``, ``y1``, ``x2``, ``y2`` in pixels of the
        1024-pixel original; an image may have several rows.

    Raises:
        DataError: another kind of file, an unknown class, a box without area or outside its image.
    """
    columns = ["name", "finding", "x", "y", "w", "h"]
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline().strip()
        # the header has nine fields and its rows six: read them under names of our own
        table = pd.read_csv(
            path, header=None, skiprows=1, names=columns, dtype=str, index_col=False, encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError:
        table = pd.DataFrame(columns=columns, dtype=str)
    except ValueError as error:
        raise DataError(f"cannot read {path} as a comma-separated table: {error}") from error
    if not header.startswith("Image Index,Finding Label"):
        raise DataError(f"{path} should begin with 'Image Index,Finding Label,Bbox [x,y,w,h]', found {header[:80]!r}")
    label = table["finding"].replace(_SYNONYMS).map({name: i for i, name in enumerate(PATHOLOGIES)})
    if label.isna().any():
        raise DataError(f"{path} has boxes of unknown classes: {first_few(table['finding'][label.isna()].unique())}")
    x, y, w, h = (pd.to_numeric(table[name], errors="coerce") for name in "xywh")
    numeric = np.isfinite(x) & np.isfinite(y) & np.isfinite(w) & np.isfinite(h)
    # the publisher's decimals may overshoot the last pixel
    inside = (x >= 0) & (y >= 0) & (w > 0) & (h > 0) & (x + w <= BOX_FRAME + 1) & (y + h <= BOX_FRAME + 1)
    wrong = table[~(numeric & inside)]
    if len(wrong):
        first = wrong.iloc[0]
        raise DataError(
            f"{path} has {len(wrong)} boxes without area or outside their {BOX_FRAME} x {BOX_FRAME} image, the first: "
            f"{first['name']} with x, y, w, h = {first['x']}, {first['y']}, {first['w']}, {first['h']}; correct them"
        )
    ids = table["name"].map(image_id)
    return pd.DataFrame({"image_id": ids, "label": label.astype(int), "x1": x, "y1": y, "x2": x + w, "y2": y + h})


def in_tuning_half(patient_id: str) -> bool:
    """Say which half of the box patients someone belongs to, by a rule that needs no other patient.

    True if the first byte of the SHA-256 of the patient number, written without leading zeros, is even.
    """
    return hashlib.sha256(patient_id.encode()).digest()[0] % 2 == 0


def official_split(
    labels: pd.DataFrame, train_val: pd.Series, test: pd.Series, boxes: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give each listed image its split.

    Args:
        labels: from ``read_labels``.
        train_val: image ids of ``train_val_list.txt``.
        test: image ids of ``test_list.txt``.
        boxes: from ``read_boxes``.

    Returns:
        ``labels`` with a column ``split``: ``train_val``, ``test``, or ``tuning`` for every test image of a patient in
        the tuning half of those with boxes. Images of neither list are left out, with a warning; and so are their
        boxes, from the second value, ``boxes``.

    Raises:
        DataError: an image or a patient in both lists, a name without a row in the table, a box on a training image.
    """
    both = set(train_val) & set(test)
    if both:
        raise DataError(f"{len(both)} images are in train_val_list.txt and test_list.txt: {first_few(sorted(both))}")
    listed = pd.concat([pd.Series("train_val", index=train_val), pd.Series("test", index=test)])
    for names, where in [(listed.index, "train_val_list.txt and test_list.txt"), (boxes["image_id"], "the box list")]:
        unknown = pd.Index(names).difference(labels["image_id"])
        if len(unknown):
            raise DataError(
                f"{len(unknown)} images of {where} have no row in the label table: {first_few(unknown)}; "
                "all files must be of one version of the data set"
            )
    split = labels["image_id"].map(listed[~listed.index.duplicated()])
    unlisted = labels["image_id"][split.isna()]
    if len(unlisted):
        rank_zero_warn(f"{len(unlisted)} images of the label table are in no list and left out: {first_few(unlisted)}")
    images = labels.assign(split=split)[split.notna()]
    _refuse_shared_patients(images)

    boxes = boxes[boxes["image_id"].isin(images["image_id"])]
    boxed = images[images["image_id"].isin(boxes["image_id"])]
    training = boxed["image_id"][boxed["split"] == "train_val"]
    if len(training):
        raise DataError(
            f"{len(training)} images with expert boxes are in train_val_list.txt: {first_few(training)}; "
            "boxes belong to test images, nobody may train on them"
        )
    tuning = [patient for patient in boxed["patient_id"].unique() if in_tuning_half(patient)]
    return images.assign(split=images["split"].mask(images["patient_id"].isin(tuning), "tuning")), boxes


def cut_validation(patients: pd.Series, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose the validation images among those of train_val, by patient.

    Every class two patients have occurs on both sides, unless that is impossible; a class of one patient stays in
    train. The choice does not depend on the order of the rows.

    Args:
        patients: patient of each image, (N,).
        labels: classes of each image in {0, 1}, (N, K).
        fraction: share of the images to choose; met up to the images of one patient.
        seed: of the draw.

    Returns:
        bool (N,), True for validation.
    """
    names, member = np.unique(patients.to_numpy(dtype=str), return_inverse=True)
    images = np.bincount(member, minlength=len(names))
    has = np.zeros((len(names), labels.shape[1]), dtype=bool)
    np.logical_or.at(has, member, labels > 0)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = np.zeros(len(names), dtype=bool)
    left = has.sum(axis=0)  # patients of each class still in train

    def choose(candidates: Collection[int]) -> bool:
        for patient in candidates:
            if (left - has[patient])[has[patient]].all():  # never the last one of a class
                chosen[patient] = True
                left[:] -= has[patient]
                return True
        return False

    for k in np.argsort(left, kind="stable"):  # rare classes first: they have the least choice
        if not has[chosen, k].any():
            choose(order[has[order, k]])
    for patient in order:
        if images[chosen].sum() >= fraction * len(patients):
            break
        if not chosen[patient]:
            choose([patient])
    return chosen[member]


def _refuse_shared_patients(images: pd.DataFrame) -> None:
    sides = images.groupby("patient_id")["split"].nunique()
    shared = sides.index[sides > 1]
    if len(shared):
        raise DataError(
            f"{len(shared)} patients are in train_val_list.txt and in test_list.txt: {first_few(shared)}; "
            "with one patient on two sides no test figure would be true"
        )
