"""TBX11K (Liu et al. 2020): tuberculosis with boxes, active and old."""

from pathlib import Path
from typing import Any

import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.sets.public import PublicDataModule, Published
from lightning_chex.data.table.boxes import BoxColumns
from lightning_chex.data.table.coco import BOX_COLUMNS, read_coco
from lightning_chex.data.table.files import find_file
from lightning_chex.data.table.joining import only, stacked

_CLASSES = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis")
_SPLITS = ("train", "val")


class TBX11KDataModule(PublicDataModule):
    """Serve TBX11K from its folder.

    Files: ``annotations/json/TBX11K_train.json`` and ``TBX11K_val.json`` in COCO's form, and the images, PNG of 512
    pixels a side, in ``imgs/health``, ``imgs/sick`` and ``imgs/tb``. The split is the official one, 6,600 and 1,800
    images; labels and boxes of the official test are not public, so its place is taken by the official validation, and
    validation is drawn from the training images, each of which counts as a patient. There are no masks.

    An image has a class if it has a box of it. Those of ``imgs/tb`` without a box have tuberculosis of a kind nobody
    names, and are left out. Boxes of the third category of the files, ``PulmonaryTuberculosis``, are of no class here.

    Terms: for research, see the publisher's page.

    Args:
        root: the folder with the publisher's files.
        classes: both kinds, or one of them.
        kwargs: see ``PublicDataModule``.

    Raises:
        ValueError: unknown classes, an unknown policy, or an impossible fraction.
    """

    label_tables = ("annotations/json/TBX11K_train.json",)

    def __init__(self, root: str | None = None, classes: list[str] | None = None, **kwargs: Any) -> None:
        names = list(_CLASSES) if classes is None else classes
        if set(names) - set(_CLASSES):
            raise ValueError(f"classes is {names!r}: give some of {', '.join(_CLASSES)}")
        super().__init__(root, classes=names, **kwargs)

    def published(self, root: Path) -> Published:
        """Read the images of both files, and label each by its boxes."""
        parts = []
        for split, serves in zip(_SPLITS, ("train", "test"), strict=True):
            path = _file(root, split)
            images, boxes = read_coco(path)
            if images.empty:
                raise DataError(f"{path} lists no image: download the file again")
            for name in _CLASSES:
                having = boxes["image"][boxes["category"] == name]
                images[name] = images["image"].isin(having).map({True: "1", False: "0"})
            unnamed = images["image"].str.contains(r"(?:^|/)tb/") & (images[list(_CLASSES)] == "0").all(axis=1)
            images.loc[unnamed, list(_CLASSES)] = ""
            parts.append((images.assign(split=serves), path))
        table, path = stacked(parts)
        return table, path, only(image="image", split="split", labels=list(_CLASSES)), None

    def read_boxes(self, root: Path) -> tuple[pd.DataFrame, Path, BoxColumns]:
        """Read the boxes of both files."""
        table, path = stacked([(read_coco(own)[1], own) for own in (_file(root, split) for split in _SPLITS)])
        columns = BoxColumns("image", "category", BOX_COLUMNS[2:6], "xywh", "pixels", BOX_COLUMNS[6:])
        return table, path, columns


def _file(root: Path, split: str) -> Path:
    return find_file(root, f"annotations/json/TBX11K_{split}.json", f"TBX11K_{split}.json")
