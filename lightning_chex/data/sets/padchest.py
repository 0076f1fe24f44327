"""PadChest (Bustos et al. 2020): 160,000 X-rays of one hospital, with findings of reports in its own terms."""

from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few
from lightning_chex.data.sets.public import PublicDataModule, Published
from lightning_chex.data.table.files import contents
from lightning_chex.data.table.joining import check_columns, only
from lightning_chex.data.table.reading import numbers, read_text_table, whole_numbers

FINDINGS = (
    "cardiomegaly",
    "pleural effusion",
    "pneumonia",
    "atelectasis",
    "infiltrates",
    "consolidation",
    "nodule",
    "mass",
    "pneumothorax",
    "pulmonary fibrosis",
    "pulmonary edema",
    "emphysema",
    "hiatal hernia",
    "pleural thickening",
)
"""Terms of PadChest for what other sets name too."""

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K*.csv"
_COLUMNS = ["ImageID", "PatientID", "Projection", "Labels"]
_EXCLUDE = "exclude"


class PadChestDataModule(PublicDataModule):
    """Serve PadChest from a folder with its table and its images.

    Files: ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv`` (or ``.csv.gz``; any date), whose ``Labels`` are
    lists as text, ``['cardiomegaly', ' pleural effusion']``; and the images, PNG of 16 bits, in folders ``0`` to ``54``
    or any others below ``root``. Images with the label ``exclude``, which are unusable, are left out, and so are those
    without a report's labels. There is no official split: it is drawn by patient. A quarter of the labels are
    physicians' (``MethodLabel``), the others a network's. There are no boxes and no masks.

    Terms: BIMCV's research use agreement; the images may not be passed on.

    Args:
        root: the folder with the publisher's files.
        classes: PadChest's own terms; by default ``FINDINGS``, fourteen frequent ones that other sets have too.
        view: of ``Projection``: ``PA``, ``AP``, ``AP_horizontal``, ``L`` and others; null for all.
        physicians: only images whose labels a physician gave.
        kwargs: see ``PublicDataModule``.

    Raises:
        ValueError: an unknown policy, or an impossible fraction.
    """

    label_tables = tuple(f"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv{end}" for end in ("", ".gz"))
    options = ("physicians",)

    def __init__(
        self,
        root: str | None = None,
        classes: list[str] | None = None,
        view: list[str] | None = ["PA"],  # noqa: B006  # never changed
        physicians: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, classes=list(FINDINGS) if classes is None else classes, view=view, **kwargs)
        self.physicians = physicians

    def published(self, root: Path) -> Published:
        """Read the table; the age is that at the time of the study."""
        found = sorted([*root.glob(_TABLE), *root.glob(f"{_TABLE}.gz")])
        if len(found) != 1:
            what = f"several: {first_few(path.name for path in found)}" if found else f"none, but {contents(root)}"
            raise DataError(f"give a root with one table {_TABLE} (or .gz); {root} holds {what}")
        table = read_text_table(found[0])
        check_columns(table, found[0], [*_COLUMNS, *(["MethodLabel"] if self.physicians else [])])
        unusable = table["Labels"].str.contains(rf"['\"]\s*{_EXCLUDE}\s*['\"]")
        if unusable.any():
            rank_zero_warn(f"{found[0]}: {unusable.sum():,} images are labelled {_EXCLUDE!r} and are left out")
        kept = ~unusable & (~table["Labels"].str.lower().isin(["", "nan", "[]"]))
        if self.physicians:
            kept &= table["MethodLabel"].str.lower() == "physician"
        if not kept.any():
            raise DataError(f"{found[0]}: no row is left of {len(table):,}: give data.physicians false")
        table = table[kept]
        told = {}
        if {"PatientBirth", "StudyDate_DICOM"} <= set(table.columns):
            birth = numbers(table["PatientBirth"])
            study = numbers(whole_numbers(table["StudyDate_DICOM"]).str[:4])
            years = study - birth
            table = table.assign(age=years.where((years >= 0) & (years < 120)).map("{:g}".format).replace("nan", ""))
            told["age"] = "age"
        if "PatientSex_DICOM" in table:
            told["sex"] = "PatientSex_DICOM"
        return (
            table,
            found[0],
            only(image="ImageID", patient="PatientID", labels="Labels", view="Projection", **told),
            None,
        )
