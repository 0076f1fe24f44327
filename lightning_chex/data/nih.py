"""NIH ChestX-ray8: eight pathologies, the official split, expert boxes on test images."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset, Subset

from lightning_chex.data.datamodule import ChestXrayDataModule, Split, telling_order
from lightning_chex.data.errors import DataError
from lightning_chex.data.images import ImageReader, check_images, find_images, first_few, image_size, read_grey
from lightning_chex.data.nih_tables import BOX_FRAME, cut_validation, official_split, read_boxes, read_labels, read_list
from lightning_chex.data.sample import PATHOLOGIES
from lightning_chex.data.tables import contents, data_root, find_file, locate
from lightning_chex.data.transforms import ImageTransform

_LABEL_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")


class NIHChestXray8(Dataset):
    """X-rays of NIH ChestX-ray8 with labels of eight pathologies and, where experts drew some, boxes.

    Args:
        images: columns ``image_id``, ``patient_id``, ``path`` and the eight ``PATHOLOGIES`` (0 or 1), a row per image.
        boxes: columns ``image_id``, ``label`` and ``x1``, ``y1``, ``x2``, ``y2`` in the 1024-pixel frame of the
            originals; boxes of other images are ignored. Copies of any square size are fine.
        transform: what an image and its boxes go through.
        read: reads an image file.
    """

    def __init__(
        self, images: pd.DataFrame, boxes: pd.DataFrame, transform: ImageTransform, read: ImageReader = read_grey
    ) -> None:
        self.labels = torch.from_numpy(images[list(PATHOLOGIES)].to_numpy(dtype=np.float32, copy=True))
        self.image_ids: list[str] = images["image_id"].tolist()
        self.patient_ids: list[str] = images["patient_id"].tolist()
        self.paths: list[str] = images["path"].tolist()
        self.transform = transform
        self.read = read
        self._boxes = {
            str(name): (rows[["x1", "y1", "x2", "y2"]].to_numpy(dtype=np.float32), rows["label"].to_numpy())
            for name, rows in boxes[boxes["image_id"].isin(images["image_id"])].groupby("image_id")
        }

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one image.

        Raises:
            DataError: it cannot be read.
        """
        grey = self.read(self.paths[index])
        height, width = grey.shape
        boxes, box_labels = self._boxes.get(self.image_ids[index], (None, None))
        if boxes is not None:
            # in double precision, where copies of every size give the same box to the last bit
            boxes = boxes * (np.array([width, height, width, height]) / BOX_FRAME)
        return {
            **self.transform(grey, boxes, box_labels),
            "label": self.labels[index].clone(),
            "image_id": self.image_ids[index],
            "patient_id": self.patient_ids[index],
        }


class NIHDataModule(ChestXrayDataModule):
    """Serve NIH ChestX-ray8 from a folder laid out as its publisher does.

    That is ``Data_Entry_2017_v2020.csv``, ``BBox_List_2017.csv``, ``train_val_list.txt``, ``test_list.txt`` and the
    images in ``images/``, ``images_*/images/`` or ``images_*/``, as PNG or JPEG of any square size.

    The test split is the official one less the patients of the tuning half, whose boxes are shown at validation; see
    ``data/nih_tables.py``. No patient is in two splits.

    Args:
        root: the folder with the publisher's files.
        val_fraction: share of the official train_val images that serves for validation, cut by patient.
        split_seed: seed of that cut.
        allow_missing: work with the images on disk if some are missing, and warn, instead of stopping.
        kwargs: see ``ChestXrayDataModule``.

    Raises:
        ValueError: ``val_fraction`` outside 0 to 1.
    """

    class_names = PATHOLOGIES

    def __init__(
        self,
        root: str | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction is {val_fraction}: give a share above 0 and below 1")
        self.root = root
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.allow_missing = allow_missing
        self._images = pd.DataFrame()
        self._boxes = pd.DataFrame()

    def check(self) -> None:
        """Read the tables, find the images and make sure that all fit together.

        Raises:
            DataError: they do not.
        """
        root = data_root(self.root)
        labels = read_labels(find_file(root, *_LABEL_TABLES))
        train_val, test = (read_list(find_file(root, f"{name}_list.txt")) for name in ("train_val", "test"))
        images, boxes = official_split(labels, train_val, test, read_boxes(find_file(root, "BBox_List_2017.csv")))

        found = find_images(root, _image_folders(root))
        paths = locate(images["image_id"], found, f"the image folders of {root}", self.allow_missing)
        images = images.loc[paths.index].assign(path=paths)
        check_images(images["path"].tolist())
        _check_square(images[images["image_id"].isin(boxes["image_id"])])

        pool = images[images["split"] == "train_val"]
        val = cut_validation(pool["patient_id"], pool[list(PATHOLOGIES)].to_numpy(), self.val_fraction, self.split_seed)
        images.loc[pool.index, "split"] = np.where(val, "val", "train")
        self._images, self._boxes = images, boxes

    def build(self, split: Split, transform: ImageTransform) -> NIHChestXray8:
        """Make the dataset of one split."""
        return NIHChestXray8(self._images[self._images["split"] == split], self._boxes, transform, self.read)

    def explained_dataset(self, stage: Literal["validate", "test"]) -> Dataset:
        """Return the images with boxes: at ``validate`` those of the tuning half, at ``test`` the reporting half.

        The classes of the boxes take turns. Empty if no image with boxes is on disk.
        """
        self.dataset("val" if stage == "validate" else "test")  # files are read and checked by now
        split = "tuning" if stage == "validate" else "test"
        with_box = (self._images["split"] == split) & self._images["image_id"].isin(self._boxes["image_id"])
        images = self._images[with_box]
        classes = pd.crosstab(self._boxes["image_id"], self._boxes["label"]).clip(upper=1)
        classes = classes.reindex(index=images["image_id"], columns=range(len(PATHOLOGIES)), fill_value=0)
        order = telling_order(torch.from_numpy(classes.to_numpy(copy=True)))
        dataset = NIHChestXray8(images, self._boxes, self._plain, self.read)
        return Subset(self.readable(dataset, f"images explained at {stage}"), order)


def _image_folders(root: Path) -> list[Path]:
    candidates = [root / "images", *sorted(root.glob("images_*")), *sorted(root.glob("images_*/images"))]
    folders = [folder for folder in candidates if folder.is_dir()]
    if not folders:
        raise DataError(
            f"no folder images, images_*/images or images_* in {root}, which holds {contents(root)}: "
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
