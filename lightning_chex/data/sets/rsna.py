"""RSNA Pneumonia Detection Challenge 2018: lung opacities on NIH X-rays, with boxes."""

from pathlib import Path
from typing import Any

from lightning_chex.data.contract import DataError
from lightning_chex.data.files.tables import contents, data_root
from lightning_chex.data.sets.table import TableDataModule
from lightning_chex.data.tables.boxes import BoxColumns
from lightning_chex.data.tables.columns import NONE, Columns

_TABLE = "stage_2_train_labels.csv"
_ORIGINAL = [1024, 1024]


class RSNADataModule(TableDataModule):
    """Serve RSNA's pneumonia X-rays from a folder laid out as the challenge was.

    That is ``stage_2_train_labels.csv``, a row a box (``patientId``, ``x``, ``y``, ``width``, ``height``, ``Target``),
    and the DICOM files, of 1024 pixels a side, in ``stage_2_train_images/``; copies as PNG or JPEG of any size will do,
    as boxes are taken as shares of the original. The images of the challenge's own test have no labels and are left
    out. There is no official split: it is drawn by image, each of which the table calls a patient.

    The images are of NIH ChestX-ray8, whose training images may be among them: a network that has seen those should not
    be tested here. For the terms see the challenge's page.

    Args:
        root: the folder with the challenge's files.
        kwargs: see ``TableDataModule``: fractions and seed of the split, ``allow_missing``, and so on.
    """

    label_tables = (_TABLE,)

    def __init__(self, root: str | None = None, **kwargs: Any) -> None:
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

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # what the column Target stands for
        """The one class."""
        return ("Lung Opacity",)
