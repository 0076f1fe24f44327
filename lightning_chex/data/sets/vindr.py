"""VinDr-CXR (Nguyen et al. 2022) and its challenge of 2020, VinBigData: boxes and labels of several readers."""

from pathlib import Path
from typing import Any

import pandas as pd

from lightning_chex.data.sets.public import PublicDataModule, Published
from lightning_chex.data.table.boxes import BoxColumns
from lightning_chex.data.table.joining import (
    check_columns,
    first_file,
    joined,
    only,
    packed_too,
    published_table,
    stacked,
)
from lightning_chex.data.table.readers import ReaderRule, check_rule
from lightning_chex.data.table.reading import read_text_table
from lightning_chex.data.table.words import is_healthy, plain

_CORNERS = ["x_min", "y_min", "x_max", "y_max"]
_CONSENSUS = "consensus"
_SIZES = ("train_meta.csv", "test_meta.csv")


class _ReadBySeveral(PublicDataModule):
    """Base of the two data sets: the readers of each image, and the rule that merges their labels."""

    options = ("readers",)

    def __init__(self, root: str | None = None, readers: ReaderRule = "majority", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        check_rule(readers)
        self.readers = readers


class VinDrDataModule(_ReadBySeveral):
    """Serve VinDr-CXR as PhysioNet publishes it.

    Files, in ``root`` or ``annotations/`` below it: ``image_labels_train.csv`` and ``image_labels_test.csv`` with 22
    findings and 6 diagnoses, ``annotations_train.csv`` and ``annotations_test.csv`` with boxes of the findings in
    pixels of the DICOM files. The split is the official one, 15,000 and 3,000 images; validation is drawn from the
    training images, each of which counts as a patient, as nobody says whose it is. Training images were read by three
    of seventeen radiologists each, whose labels and boxes are joined by ``readers``; those of the test are a consensus
    of five. Copies of another size need their originals' sizes, ``train_meta.csv`` and ``test_meta.csv`` (``image_id``,
    ``dim0`` rows, ``dim1`` columns). There are no masks.

    Terms: PhysioNet's credentialed access; the images may not be passed on.

    Args:
        root: the folder with the publisher's files.
        readers: how many of the readers of a training image have to see a finding: ``any``, ``majority`` or ``all``;
            and to draw it, see ``merge_boxes``.
        kwargs: see ``PublicDataModule``.

    Raises:
        ValueError: an unknown rule or policy, or an impossible fraction.
    """

    label_tables = ("image_labels_train.csv", "annotations/image_labels_train.csv")

    def published(self, root: Path) -> Published:
        """Read the labels of all images, a row a reader."""
        parts = []
        for split in ("train", "test"):
            name = f"image_labels_{split}.csv"
            table, path = published_table(root, name, f"annotations/{name}", columns=["image_id"])
            table = table.rename(columns={own: _singular(own) for own in table.columns})
            parts.append((_with_reader(table, path, split).assign(split=split), path))
        table, path = stacked(parts)
        classes = [name for name in table.columns if name not in ("image_id", "rad_id", "split")]
        for part, own in parts:
            check_columns(part, own, classes)
        classes = [name for name in classes if not is_healthy(name)]
        return table, path, only(image="image_id", reader="rad_id", split="split", labels=classes), None

    def read_boxes(self, root: Path) -> tuple[pd.DataFrame, Path, BoxColumns]:
        """Read the boxes of all images, a row each."""
        parts = []
        for split in ("train", "test"):
            name = f"annotations_{split}.csv"
            columns = ["image_id", "class_name", *_CORNERS]
            table, path = published_table(root, name, f"annotations/{name}", columns=columns)
            table = table.assign(class_name=table["class_name"].map(_singular))
            parts.append((_with_reader(table, path, split), path))
        table, path = stacked(parts)
        return _boxes(table, path, root, "rad_id")


class VinBigDataDataModule(_ReadBySeveral):
    """Serve the VinBigData challenge: the 15,000 training images of VinDr-CXR, with 14 findings.

    ``train.csv`` has a row a box (``image_id``, ``class_name``, ``rad_id``, ``x_min``, ``y_min``, ``x_max``,
    ``y_max``), or a "No finding" without one, of each of the three readers of an image. Boxes are in pixels of the
    DICOM files; copies as PNG of another size need ``train_meta.csv`` (``image_id``, ``dim0`` rows, ``dim1`` columns)
    or columns ``width`` and ``height`` in ``train.csv``, as people who publish such copies give them. There is no
    official split: it is drawn by image, each of which counts as a patient. There are no masks.

    Terms: the challenge's rules, for research and education; VinDr-CXR's for the same images.

    Args:
        root: the folder with the challenge's files.
        readers: how many of the readers of an image have to see a finding: ``any``, ``majority`` or ``all``; and to
            draw it, see ``merge_boxes``.
        kwargs: see ``PublicDataModule``.

    Raises:
        ValueError: an unknown rule or policy, or an impossible fraction.
    """

    def published(self, root: Path) -> Published:
        """Read the one table."""
        columns = ["image_id", "class_name", "rad_id", *_CORNERS]
        table, path = published_table(root, "train.csv", columns=columns)
        table, path, boxes = _boxes(table, path, root, None)
        return table, path, only(image="image_id", reader="rad_id", labels="class_name"), boxes


def _boxes(table: pd.DataFrame, path: Path, root: Path, reader: str | None) -> tuple[pd.DataFrame, Path, BoxColumns]:
    """Add the sizes of the originals, where tables of them are there, and say which columns the boxes are."""
    sizes = [read for name in _SIZES if (read := first_file(root, *packed_too(name))) is not None]
    frame: list[str] | None = ["width", "height"] if {"width", "height"} <= set(table.columns) else None
    if sizes and frame is None:
        parts = [(read_text_table(own), own) for own in sizes]
        for part, own in parts:
            check_columns(part, own, ["image_id", "dim0", "dim1"])
        meta, meta_path = stacked(parts)
        table = joined(table, path, meta, meta_path, ["image_id"], ["dim0", "dim1"])
        frame = ["dim1", "dim0"]
    columns = BoxColumns("image_id", "class_name", _CORNERS, "xyxy", "pixels", frame, reader=reader)
    return table, path, columns


def _with_reader(table: pd.DataFrame, path: Path, split: str) -> pd.DataFrame:
    if split == "train":
        check_columns(table, path, ["rad_id"])
        return table
    return table.assign(rad_id=_CONSENSUS)  # the tables of the test name none


def _singular(name: str) -> str:
    """One name for a class that the tables of training and test write in two ways."""
    return "Other diseases" if plain(name) == "otherdisease" else name
