"""SIIM-ACR Pneumothorax Segmentation (2019): outlined pneumothoraces on NIH X-rays."""

from pathlib import Path
from typing import Any

from lightning_chex.data.sets.public import PublicDataModule, Published
from lightning_chex.data.table.annotations import MaskSources, Names, run_masks
from lightning_chex.data.table.joining import only, published_table
from lightning_chex.data.table.locating import names_of_images
from lightning_chex.data.table.masks import NO_MASK, Masks, read_runs

_TABLES = ("train-rle.csv", "stage_2_train.csv", "train-rle-sample.csv")
_CLASS = "Pneumothorax"


class SIIMDataModule(PublicDataModule):
    """Serve SIIM-ACR's pneumothoraces from a folder laid out as the challenge was.

    ``train-rle.csv`` (or ``stage_2_train.csv``) has the columns ``ImageId`` and `` EncodedPixels``, with a blank before
    the name: relative run lengths, column by column, on 1024 x 1024 pixels; -1 where there is no pneumothorax, and
    several rows for several of them. The DICOM files lie in folders of study and series of any depth; copies as PNG of
    any size will do. Images of the challenge's own test have no row and are left out. There is no official split: it is
    drawn by image, each of which counts as a patient. There are masks, and no boxes.

    The images are of NIH ChestX-ray8, whose training images may be among them: a network that has seen those should not
    be tested here. Terms: the challenge's rules, for research and education.

    Args:
        root: the folder with the challenge's files.
        kwargs: see ``PublicDataModule``.

    Raises:
        ValueError: an unknown policy, or an impossible fraction.
    """

    label_tables = _TABLES

    def __init__(self, root: str | None = None, **kwargs: Any) -> None:
        super().__init__(root, classes=[_CLASS], **kwargs)

    def published(self, root: Path) -> Published:
        """Make one row an image."""
        table, path = published_table(root, *_TABLES, columns=["ImageId", "EncodedPixels"])
        marked = ~table["EncodedPixels"].str.lower().isin(NO_MASK)
        anywhere = marked.groupby(table["ImageId"]).transform("any")
        images = table.assign(**{_CLASS: anywhere.map({True: "1", False: "0"})})
        return images[~table["ImageId"].duplicated()], path, only(image="ImageId", labels=[_CLASS]), None

    def read_masks(self, names: Names, root: Path) -> MaskSources:
        """Read the run lengths of the images in use."""
        table, path = published_table(root, *_TABLES, columns=["ImageId", "EncodedPixels"])
        masks = Masks(image="ImageId", text="EncodedPixels", form="siim", frame=[1024, 1024])
        rows = read_runs(table, path, masks, [_CLASS])
        return run_masks(rows.assign(image=names_of_images(rows["image"], path, root)), path, masks, 1, names, {})
