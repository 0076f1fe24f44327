"""The tables of NIH ChestX-ray8, in all published versions.

``Data_Entry_2017.csv`` and ``Data_Entry_2017_v2020.csv`` differ in their headers and in a few labels;
``sample_labels.csv`` comes with the "sample", a random twentieth of the images without lists and boxes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.class_names import PATHOLOGIES
from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few
from lightning_chex.data.table.files import find_file, image_ids, intact, read_table

BOX_FRAME = 1024
"""Side in pixels of the publisher's images, in which the boxes are given."""

CHESTXRAY14 = (*PATHOLOGIES, "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
"""The fourteen pathologies of the label table in the publisher's order: the eight of ChestX-ray8, then the others."""

_HEALTHY = "No Finding"
_SYNONYMS = {"Infiltrate": "Infiltration"}  # the box list's word for it

_DEMOGRAPHY = {"Patient Age": "age", "Patient Gender": "sex", "Patient Sex": "sex", "View Position": "view"}
_OLDEST = 120

_BOXES = "BBox_List_2017.csv"
_TRAINING, _TEST = _LISTS = ("train_val_list.txt", "test_list.txt")
_SAMPLE = "sample_labels.csv"
LABEL_TABLES = tuple(
    f"{folder}{name}{packed}"
    for folder, name in (
        ("", "Data_Entry_2017_v2020.csv"),
        ("", "Data_Entry_2017.csv"),
        ("", _SAMPLE),
        ("sample/", _SAMPLE),
    )
    for packed in ("", ".gz")
)
"""Where a label table may lie in the data root; the first one there is read."""


class NIHTables(NamedTuple):
    """Contents of the publisher's tables.

    Attributes:
        labels: see ``read_labels``.
        boxes: see ``read_boxes``; empty without a list, which only the sample may lack.
        train_val: image ids of ``train_val_list.txt``, empty in a copy of test images; None if the sample has no lists.
        test: image ids of ``test_list.txt``, or None likewise.
    """

    labels: pd.DataFrame
    boxes: pd.DataFrame
    train_val: pd.Series | None
    test: pd.Series | None


def read_tables(root: Path) -> NIHTables:
    """Find and read the publisher's tables.

    Beside the sample's own table, the lists and boxes of the whole data set are cut down to its images.

    Args:
        root: the folder they were unpacked to.

    Raises:
        DataError: one is missing or is not what it should be.
    """
    path = find_file(root, *LABEL_TABLES)
    labels = read_labels(path)
    if not path.name.startswith(_SAMPLE):
        boxes = read_boxes(find_file(root, _BOXES))
        return NIHTables(labels, boxes, *_read_lists(root))

    def known(ids: pd.Series) -> pd.Series:
        return ids.isin(labels["image_id"])

    boxes = read_boxes(root / _BOXES) if (root / _BOXES).is_file() else _no_boxes()
    boxes = boxes[known(boxes["image_id"])]
    if not any((root / name).is_file() for name in _LISTS):
        return NIHTables(labels, boxes, None, None)
    train_val, test = _read_lists(root)
    return NIHTables(labels, boxes, train_val[known(train_val)], test[known(test)])


def _read_lists(root: Path) -> tuple[pd.Series, pd.Series]:
    """Image ids for training and for test; the former are needed for training alone."""
    path = root / _TRAINING
    train_val = read_list(path, may_be_empty=True) if path.is_file() else pd.Series(dtype=str)
    if train_val.empty:
        found = f"{path} names no image" if path.is_file() else f"there is no {_TRAINING} in {root}"
        rank_zero_warn(f"{found}: there are test images alone, and nothing to train on")
    return train_val, read_list(find_file(root, _TEST))


def read_labels(path: Path) -> pd.DataFrame:
    """Read ``Data_Entry_2017*.csv`` or ``sample_labels.csv``, plain or packed by gzip.

    Returns:
        Columns ``image_id``, ``patient_id`` (without leading zeros), one of 0 and 1 for each of ``CHESTXRAY14``, and,
        where the table has them, ``sex`` and ``view`` as they are and ``age`` in years, NaN where it is none.

    Raises:
        DataError: see ``read_table``; or a finding no version of the data set has.
    """
    table = read_table(path, ["Image Index", "Finding Labels", "Patient ID"], optional=list(_DEMOGRAPHY))
    findings = table["Finding Labels"]
    for word, name in _SYNONYMS.items():
        findings = findings.str.replace(rf"\b{word}\b", name, regex=True)
    unknown = set("|".join(findings.unique()).split("|")) - {*CHESTXRAY14, _HEALTHY}
    if unknown:
        names = first_few(sorted(map(repr, unknown)))
        raise DataError(f"{path} has findings this data set does not know: {names}; correct them, or get a fresh copy")
    fenced = "|" + findings + "|"  # no name is found inside another
    labels = {name: fenced.str.contains(f"|{name}|", regex=False).astype(np.float32) for name in CHESTXRAY14}
    patients = table["Patient ID"].str.replace(r"^0+(?=\d)", "", regex=True)
    more = {own: table[name] for name, own in _DEMOGRAPHY.items() if name in table}
    if "age" in more:
        more["age"] = _years(more["age"])
    return pd.DataFrame({"image_id": table["Image Index"], "patient_id": patients, **more, **labels})


def _years(cells: pd.Series) -> pd.Series:
    """Ages as the versions of the table write them, ``58``, ``058Y``, ``018M``, ``010D``, in years."""
    parts = cells.str.extract(r"^\s*(\d+)\s*([YMWD]?)\s*$")
    years = pd.to_numeric(parts[0]) / parts[1].map({"Y": 1, "M": 12, "W": 52.18, "D": 365.25, "": 1})
    return years.where(years < _OLDEST)  # the first version has ages of 414 years


def read_list(path: Path, may_be_empty: bool = False) -> pd.Series:
    """Read a list of image names, one a line, as image ids.

    Raises:
        DataError: it is no text, names no image and should, names one twice, or a line is no file name.
    """
    with intact(path, "a list of image names"):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    names = image_ids(pd.Series([line.strip() for line in lines if line.strip()], dtype=str), path)
    if names.empty and not may_be_empty:
        raise DataError(f"{path} names no image: download the file again")
    double = names[names.duplicated()]
    if len(double):
        raise DataError(f"{path} names {len(double)} images more than once: {first_few(double)}; keep one line each")
    return names


def read_boxes(path: Path) -> pd.DataFrame:
    """Read ``BBox_List_2017.csv``.

    Returns:
        Columns ``image_id``, ``label`` (index in ``PATHOLOGIES``) and ``x1``, ``y1``, ``x2``, ``y2`` in pixels of the
        1024-pixel original; an image may have several rows.

    Raises:
        DataError: another kind of file, an unknown class, a box without area or outside its image.
    """
    columns = ["name", "finding", "x", "y", "w", "h"]
    with intact(path, "a comma-separated list of boxes"):
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline().strip()
        if not header.startswith("Image Index,Finding Label"):
            raise DataError(
                f"{path} should begin with 'Image Index,Finding Label,Bbox [x,y,w,h]', found {header[:80]!r}: "
                "download the file again"
            )
        try:
            # the header has nine fields and its rows six: read them under names of our own
            table = pd.read_csv(
                path, header=None, skiprows=1, names=columns, dtype=str, index_col=False, encoding="utf-8-sig"
            )
        except pd.errors.EmptyDataError:  # a header alone is a list without boxes
            return _no_boxes()
    label = table["finding"].replace(_SYNONYMS).map({name: i for i, name in enumerate(PATHOLOGIES)})
    if label.isna().any():
        names = first_few(table["finding"][label.isna()].unique())
        raise DataError(f"{path} has boxes of unknown classes: {names}; correct them, or get a fresh copy")
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
    ids = image_ids(table["name"].fillna(""), path)
    return pd.DataFrame({"image_id": ids, "label": label.astype(int), "x1": x, "y1": y, "x2": x + w, "y2": y + h})


def _no_boxes() -> pd.DataFrame:
    columns = {"image_id": str, "label": int, "x1": float, "y1": float, "x2": float, "y2": float}
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})
