"""NIH ChestX-ray8 and 14: up to fourteen pathologies, the official split, expert boxes on test images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import Dataset, Subset

from lightning_chex.class_names import PATHOLOGIES
from lightning_chex.data.contract import DataError, LabelledDataset, Samples, Split, Stage
from lightning_chex.data.datamodule import ChestXrayDataModule
from lightning_chex.data.fingerprint import fingerprint
from lightning_chex.data.images.images import ImageReader, find_images, first_few, image_size, read_grey
from lightning_chex.data.images.known_files import check_once
from lightning_chex.data.labels import varied_order
from lightning_chex.data.sets.image_files import ImageFiles
from lightning_chex.data.sets.nih_splits import official_split, sample_lists
from lightning_chex.data.sets.nih_tables import BOX_FRAME, CHESTXRAY14, LABEL_TABLES, read_tables
from lightning_chex.data.splits import check_fractions, draw_validation
from lightning_chex.data.table.files import contents, data_root, locate
from lightning_chex.data.transforms import ImageTransform

ClassSet = Literal["chestxray8", "chestxray14"]

_CLASS_SETS: dict[str, tuple[str, ...]] = {"chestxray8": PATHOLOGIES, "chestxray14": CHESTXRAY14}


class NIHChestXray8(ImageFiles):
    """X-rays of NIH ChestX-ray8 with labels of some pathologies and, where experts drew some, boxes.

    Args:
        images: columns ``image_id``, ``patient_id``, ``path`` and each of ``classes`` (0 or 1), a row per image.
        boxes: columns ``image_id``, ``label`` (index in ``classes``) and ``x1``, ``y1``, ``x2``, ``y2`` in the
            1024-pixel frame of the originals; boxes of other images are ignored. Copies of any square size are fine.
        transform: what an image and its boxes go through.
        read: reads an image file.
        classes: the pathologies in the order of ``label``.

    Attributes:
        labels: the labels of all images, float32 (N, K).
        all_box_labels: class index of every box on these images, int64 (M,).
    """

    def __init__(
        self,
        images: pd.DataFrame,
        boxes: pd.DataFrame,
        transform: ImageTransform,
        read: ImageReader = read_grey,
        classes: Sequence[str] = PATHOLOGIES,
    ) -> None:
        super().__init__(images, transform, read)
        self.labels = torch.from_numpy(images[list(classes)].to_numpy(dtype=np.float32, copy=True))
        boxes = boxes[boxes["image_id"].isin(images["image_id"])]
        self.all_box_labels = torch.from_numpy(boxes["label"].to_numpy(dtype=np.int64, copy=True))
        self._boxes = {
            str(name): (rows[["x1", "y1", "x2", "y2"]].to_numpy(dtype=np.float32), rows["label"].to_numpy())
            for name, rows in boxes.groupby("image_id")
        }

    def annotations(self, index: int, height: int, width: int) -> dict[str, Any]:
        """Return the boxes of one image, if there are any, in its pixels."""
        if self.image_ids[index] not in self._boxes:
            return {}
        boxes, labels = self._boxes[self.image_ids[index]]
        # in double precision, where copies of every size give the same box to the last bit
        return {"boxes": boxes * (np.array([width, height, width, height]) / BOX_FRAME), "box_labels": labels}


class NIHDataModule(ChestXrayDataModule):
    """Serve NIH ChestX-ray8 from a folder laid out as its publisher does.

    That is ``Data_Entry_2017_v2020.csv`` or ``Data_Entry_2017.csv``, ``BBox_List_2017.csv``, ``train_val_list.txt``,
    ``test_list.txt`` and the images in ``images/``, ``images_*/images/`` or ``images_*/``, as PNG or JPEG of any square
    size. Or the "sample" of 5,606 images: ``sample_labels.csv`` and ``images/`` or ``sample/images/``; see
    ``data/sets/nih_splits.py`` for its test images. A label table may be packed by gzip.

    The test split is the official one less the patients of the tuning half, whose boxes are shown at validation; see
    ``data/sets/nih_splits.py``. No patient is in two splits, and no split depends on ``classes``.

    Args:
        root: the folder with the publisher's files.
        classes: the pathologies to learn: ``chestxray8`` for the eight of the publication, ``chestxray14`` for all in
            the table, or names of those, whose order is kept. Boxes of other pathologies are ignored.
        val_fraction: share of the official train_val images that serves for validation, cut by patient.
        split_seed: seed of that cut.
        allow_missing: leave out missing images with a warning, instead of raising; also those of the lists and boxes
            of which the label table has no row.
        kwargs: see ``ChestXrayDataModule``.

    Raises:
        ValueError: ``val_fraction`` outside 0 to 1, or ``classes`` that are unknown, repeated or none.
    """

    label_tables = LABEL_TABLES

    def __init__(
        self,
        root: str | None = None,
        classes: ClassSet | list[str] = "chestxray8",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fractions(val_fraction)
        self.root = root
        self.class_names = _class_names(classes)
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.allow_missing = allow_missing
        self._images = pd.DataFrame()
        self._boxes = pd.DataFrame()

    def check(self) -> None:
        """Read the tables, find the images and check that they match; raises a DataError otherwise."""
        root = data_root(self.root)
        labels, boxes, train_val, test = read_tables(root)
        if train_val is None or test is None:
            train_val, test = sample_lists(labels, boxes)
            rank_zero_warn(
                "the sample has no official split: a fifth of its patients is tested on, and no figure of that "
                "compares with others'; put train_val_list.txt and test_list.txt beside it to keep the official sides"
            )
        images, boxes = official_split(labels, train_val, test, boxes, self.allow_missing)
        # before missing images are left out and by all pathologies, so that the split of a patient depends on neither
        pool = images[images["split"] == "train_val"]
        val = draw_validation(
            pool["patient_id"], pool[list(CHESTXRAY14)].to_numpy(), self.val_fraction, self.split_seed
        )
        images.loc[pool.index, "split"] = np.where(val, "val", "train")

        found = find_images(root, _image_folders(root), self.follow_links)
        where = f"the image folders of {root}"
        paths = locate(images["image_id"], found, where, self.allow_missing, images["split"])
        images = images.loc[paths.index].assign(path=paths)
        check_once(images["path"].tolist(), self.trainer, self.decodes_sample)
        _check_square(images[images["image_id"].isin(boxes["image_id"])])

        # index in PATHOLOGIES to index in the classes asked for
        index = {PATHOLOGIES.index(name): i for i, name in enumerate(self.class_names) if name in PATHOLOGIES}
        boxes = boxes[boxes["label"].isin(list(index))]
        self._images = images
        self._boxes = boxes.assign(label=boxes["label"].map(index).astype(int))

    def build(self, split: Split, transform: ImageTransform) -> NIHChestXray8:
        """Make the dataset of one split."""
        return self._dataset(self._images[self._images["split"] == split], transform)

    def parts(self) -> dict[str, LabelledDataset]:
        """Return the three splits and the tuning half, which belongs to none of them."""
        tuning = self._images[self._images["split"] == "tuning"]
        return {**super().parts(), "tuning": self._dataset(tuning, self._plain)}

    def explained_dataset(self, stage: Stage) -> Samples:
        """Return the images with boxes, of the tuning half or the reporting half; may be empty."""
        self.look()
        split = "tuning" if stage == "validate" else "test"
        with_box = (self._images["split"] == split) & self._images["image_id"].isin(self._boxes["image_id"])
        images = self._images[with_box]
        classes = pd.crosstab(self._boxes["image_id"], self._boxes["label"]).clip(upper=1)
        classes = classes.reindex(index=images["image_id"], columns=range(len(self.class_names)), fill_value=0)
        order = varied_order(torch.from_numpy(classes.to_numpy(copy=True)))
        dataset = self._dataset(images, self._plain)
        return Subset(cast(Dataset, self.readable(dataset, f"images explained at {stage}")), order)

    def fingerprint(self) -> str:
        """Hash of all an evaluation depends on, the boxes included."""
        self.look()
        return fingerprint(self, self._boxes.to_csv(index=False))

    def _dataset(self, images: pd.DataFrame, transform: ImageTransform) -> NIHChestXray8:
        return NIHChestXray8(images, self._boxes, transform, self.read, self.class_names)


def _class_names(classes: ClassSet | list[str]) -> tuple[str, ...]:
    if isinstance(classes, str):
        if classes not in _CLASS_SETS:
            raise ValueError(f"classes is {classes!r}: give {' or '.join(get_args(ClassSet))}, or a list of names")
        return _CLASS_SETS[classes]
    unknown = [name for name in classes if name not in CHESTXRAY14]
    if unknown:
        raise ValueError(f"classes names {', '.join(map(repr, unknown))}: choose from {', '.join(CHESTXRAY14)}")
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes is {classes}: give at least one name, and each once")
    return tuple(classes)


def _image_folders(root: Path) -> list[Path]:
    candidates = [
        root / "images",
        root / "sample" / "images",
        *sorted(root.glob("images_*")),
        *sorted(root.glob("images_*/images")),
    ]
    folders = [folder for folder in candidates if folder.is_dir()]
    if not folders:
        raise DataError(
            f"no folder images, images_*/images, images_* or sample/images in {root}, which holds {contents(root)}: "
            "unpack the publisher's image archives there"
        )
    return folders


def _check_square(images: pd.DataFrame) -> None:
    odd = []
    for path in images["path"].tolist():
        width, height = image_size(path)
        if width != height:
            odd.append(f"{path} ({width} x {height})")
    if odd:
        raise DataError(
            f"{len(odd)} images with boxes are not square: {first_few(odd)}; boxes are given on the whole "
            f"{BOX_FRAME} x {BOX_FRAME} original, so copies must keep all of it"
        )
