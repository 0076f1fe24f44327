"""RSNA Pneumonia Detection Challenge 2018: lung opacities on NIH X-rays, with boxes."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import image_size
from lightning_chex.data.sets.table import TableDataModule
from lightning_chex.data.table.boxes import BoxColumns
from lightning_chex.data.table.columns import NONE, Columns
from lightning_chex.data.table.files import contents, data_root
from lightning_chex.data.table.reading import numbers

_TABLE = "stage_2_train_labels.csv"
_ORIGINAL = [1024, 1024]

_ENOUGH_BOXES = 20
"""So many boxes of the 1024-pixel originals would not all lie in the upper left part that a smaller copy covers."""

Frame = Literal["original", "copy"]


class RSNADataModule(TableDataModule):
    """Serve RSNA's pneumonia X-rays from a folder laid out as the challenge was.

    That is ``stage_2_train_labels.csv``, a row a box (``patientId``, ``x``, ``y``, ``width``, ``height``, ``Target``),
    and the DICOM files, of 1024 pixels a side, in ``stage_2_train_images/``; copies as PNG or JPEG of any size will do.
    Boxes of copies may be in pixels of the original or of the copy, see ``frame``. The images of the challenge's own
    test have no labels and are left out. There is no official split: it is drawn by image, each of which the table
    calls a patient.

    The images are of NIH ChestX-ray8, whose training images may be among them: a network that has seen those should not
    be tested here. For the terms see the challenge's page.

    Args:
        root: the folder with the challenge's files.
        frame: what the pixels of the boxes are of, the challenge's ``original`` of 1024 pixels a side, or the ``copy``
            on disk. By default the original where the images have its size, or where a box reaches beyond a smaller
            copy; the copy where the boxes of 20 or more lie within it, which is said; otherwise it has to be given.
        kwargs: see ``TableDataModule``: fractions and seed of the split, ``allow_missing``, and so on.
    """

    label_tables = (_TABLE,)

    def __init__(self, root: str | None = None, frame: Frame | None = None, **kwargs: Any) -> None:
        if frame not in (None, "original", "copy"):
            raise DataError(f"frame is {frame!r}: give original or copy")
        self.frame = frame
        columns = Columns(
            image="patientId", patient=NONE, split=NONE, labels=["Target"], view=NONE, sex=NONE, age=NONE, score=NONE
        )
        boxes = BoxColumns(
            image="patientId", box=["x", "y", "width", "height"], form="xywh", unit="pixels", original=_ORIGINAL
        )
        super().__init__(root, _TABLE, columns=columns, box_columns=boxes, **kwargs)

    def check(self) -> None:
        """Read the table and find the images; raises a DataError otherwise."""
        root = data_root(self.root)
        if not Path(root, _TABLE).is_file():
            raise DataError(f"no {_TABLE} in {root}, which holds {contents(root)}: unpack the challenge's files there")
        super().check()

    def read_boxes(self, root: Path) -> tuple[pd.DataFrame, Path, BoxColumns] | None:
        """Read the boxes, in pixels of the originals or of the copies on disk."""
        found = super().read_boxes(root)
        if found is None:
            return None
        table, path, columns = found
        return table, path, replace(columns, original=_ORIGINAL if self._are_of_originals(table, path) else None)

    def _are_of_originals(self, table: pd.DataFrame, path: Path) -> bool:
        """Decide from the boxes and the size of an image what the pixels of the boxes are of."""
        if self.frame is not None:
            return self.frame == "original"
        if self._images.empty:
            return True
        width, height = image_size(self._images["path"].iloc[0])
        if (width, height) == tuple(_ORIGINAL):
            return True
        corners = table[["x", "y", "width", "height"]].apply(numbers).dropna()
        beyond = (corners["x"] + corners["width"] > width + 1) | (corners["y"] + corners["height"] > height + 1)
        if beyond.any():
            return True
        if len(corners) >= _ENOUGH_BOXES:
            rank_zero_warn(
                f"{path}: all {len(corners)} boxes lie within the {width} x {height} pixels of the images on disk, and "
                "are taken as boxes of these copies; --data.frame original if they are of the 1024-pixel originals"
            )
            return False
        raise DataError(
            f"{path}: its {len(corners)} boxes could be of the images on disk ({width} x {height}) or of the "
            "challenge's originals (1024 x 1024): give --data.frame copy or --data.frame original"
        )

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # what the column Target stands for
        """The one class."""
        return ("Lung Opacity",)
