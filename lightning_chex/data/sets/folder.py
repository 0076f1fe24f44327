"""A folder of X-rays and nothing else: no table, no labels."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from lightning_chex.data.contract import DataError
from lightning_chex.data.datamodule import ChestXrayDataModule, LabelledDataset, Split
from lightning_chex.data.images.images import ImageReader, check_names, find_images, image_folders, read_grey
from lightning_chex.data.images.known_files import check_once
from lightning_chex.data.sets.image_files import ImageFiles
from lightning_chex.data.table.files import contents, data_root
from lightning_chex.data.transforms import ImageTransform


class UnlabelledXrays(ImageFiles):
    """X-rays of which only the pixels are known: samples have no ``label``.

    Args:
        images: columns ``image_id`` and ``path``, a row per image.
        transform: what an image goes through.
        read: reads an image file.

    Attributes:
        labels: float32 (N, 0).
    """

    def __init__(self, images: pd.DataFrame, transform: ImageTransform, read: ImageReader = read_grey) -> None:
        super().__init__(images.assign(patient_id="image:" + images["image_id"]), transform, read)
        self.labels = torch.zeros(len(images), 0)

    def values(self, index: int) -> dict[str, Any]:
        """Return nothing: there is no label."""
        return {}


class ImageFolderDataModule(ChestXrayDataModule):
    """Serve the X-rays of a folder and the folders in it, to ``predict`` and ``explain`` alone: nothing is labelled.

    PNG, JPEG and DICOM files; hidden files and folders and the output of ``explain`` are ignored. An image is
    named by its path below ``root`` without the suffix, such as ``ward/0001``.

    Args:
        root: the folder.
        class_names: names of the model's classes; the command line takes them from the checkpoint.
        score_names: names of the model's scores, where it predicts scores; also from the checkpoint.
        statistics_root: a folder of X-rays from which explanations take feature statistics where no checkpoint holds
            any, as of a network that was trained elsewhere; fifty or more are advised.
        kwargs: see ``ChestXrayDataModule``. With ``on_unreadable: skip`` files are not checked beforehand.
    """

    def __init__(
        self,
        root: str | None = None,
        class_names: Sequence[str] | None = None,
        score_names: Sequence[str] | None = None,
        statistics_root: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.statistics_root = statistics_root
        self._others: pd.DataFrame | None = None
        self.class_names = tuple(class_names or ())
        self.score_names = tuple(score_names or type(self).score_names)

    def check(self) -> None:
        """Find the images, and check that they are complete; raises a DataError otherwise."""
        self._images = self._images_below(self.root, "root")
        others = self.statistics_root
        self._others = None if others is None else self._images_below(others, "statistics_root")

    def _images_below(self, given: str | None, name: str) -> pd.DataFrame:
        root = data_root(given, name)
        found: dict[str, str] = {}
        for folder in image_folders(root, self.follow_links):
            below = folder.relative_to(root).as_posix()
            prefix = "" if below == "." else f"{below}/"
            images = find_images(root, [folder], self.follow_links)
            found |= {prefix + name: path for name, path in sorted(images.items()) if not name.startswith(".")}
        if not found:
            raise DataError(f"no PNG, JPEG or DICOM image in {root}, which holds {contents(root)}: give another {name}")
        if self.on_unreadable == "error":
            check_once(list(found.values()), self.trainer, self.decodes_sample)
        check_names(found)  # pandas cannot hold some of the names that file systems can
        return pd.DataFrame({"image_id": list(found), "path": list(found.values())})

    def build(self, split: Split, transform: ImageTransform) -> UnlabelledXrays:
        """Make the dataset of all images."""
        return UnlabelledXrays(self._images, transform, self.read)

    def parts(self) -> dict[str, LabelledDataset]:
        """Return all images as ``test``, and as ``train`` those of ``statistics_root``, if it is given."""
        found: dict[str, LabelledDataset] = {"test": self.build("test", self._plain)}
        if self._others is not None:
            found["train"] = UnlabelledXrays(self._others, self._plain)
        return found

    def setup(self, stage: str | None = None) -> None:
        """Find the images; a stage that needs labels raises a DataError."""
        if stage in ("fit", "validate", "test"):
            raise DataError(
                f"{stage} needs labels, and ImageFolderDataModule has none: use predict or explain, or give --data "
                "the data module of a data set with a table"
            )
        self.look()
