"""Images read from files, with what a table says of each: the base of the data sets on disk."""

from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.utils.data import Dataset

from lightning_chex.data.images.images import ImageReader, read_grey
from lightning_chex.data.subgroups import subgroups_of
from lightning_chex.data.transforms import ImageTransform


class ImageFiles(Dataset):
    """X-rays from files; a child sets ``labels`` and may override ``annotations`` and ``values``.

    Args:
        images: columns ``image_id``, ``patient_id`` and ``path``, a row per image; those of `subgroups_of` count too.
        transform: from a grey image and its annotations to the sample.
        read: reads an image file.
    """

    labels: Tensor

    def __init__(self, images: pd.DataFrame, transform: ImageTransform, read: ImageReader = read_grey) -> None:
        self.image_ids: list[str] = images["image_id"].tolist()
        self.patient_ids: list[str] = images["patient_id"].tolist()
        self.paths: list[str] = images["path"].tolist()
        self.subgroups = subgroups_of(images)
        self.transform = transform
        self.read = read

    def annotations(self, index: int, height: int, width: int) -> dict[str, Any]:
        """Return the boxes and masks of image ``index``, as arguments of the transform."""
        return {}

    def values(self, index: int) -> dict[str, Any]:
        """Return the other values of sample ``index``."""
        return {"label": self.labels[index].clone()}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one image.

        Raises:
            DataError: the image, or a mask, cannot be read.
        """
        grey: np.ndarray = self.read(self.paths[index])
        height, width = grey.shape
        return {
            **self.transform(grey, **self.annotations(index, height, width)),
            **self.values(index),
            "image_id": self.image_ids[index],
            "patient_id": self.patient_ids[index],
            **({} if self.subgroups is None else {"subgroups": dict(self.subgroups[index])}),
        }
