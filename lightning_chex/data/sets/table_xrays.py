"""X-rays with the labels, boxes and masks that a table gives them: the data set of ``TableDataModule``."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from lightning_chex.data.images.images import ImageReader, read_grey
from lightning_chex.data.sets.image_files import ImageFiles
from lightning_chex.data.table.annotations import MaskSources
from lightning_chex.data.transforms import ImageTransform


class TableXrays(ImageFiles):
    """X-rays with the labels, boxes and masks of a table.

    Args:
        images: columns ``image_id``, ``patient_id`` and ``path``, a row per image.
        labels: float32 (N, K) in {0, 1} or NaN (not known), (N,) for one score, (N, S) for S scores.
        transform: what an image and its boxes go through.
        read: reads an image file.
        classes: number K of classes; 0 for scores.
        boxes: columns ``image_id``, ``label``, ``x1``, ``y1``, ``x2``, ``y2``, and ``width`` and ``height`` of the
            frame they are in; boxes of other images are ignored.
        masks: of the classes; None: there are none.
    """

    def __init__(
        self,
        images: pd.DataFrame,
        labels: np.ndarray,
        transform: ImageTransform,
        read: ImageReader = read_grey,
        classes: int = 0,
        boxes: pd.DataFrame | None = None,
        masks: MaskSources | None = None,
    ) -> None:
        super().__init__(images, transform, read)
        self.labels = torch.from_numpy(labels.copy())
        self.unknown_labels = classes > 0
        self._masks = masks
        self._boxes: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.all_box_labels: torch.Tensor | None = None
        if boxes is not None:
            boxes = boxes[boxes["image_id"].isin(images["image_id"])]
            self.all_box_labels = torch.from_numpy(boxes["label"].to_numpy(dtype=np.int64, copy=True))
            # shares of the frame, so that copies of every size give the same boxes
            corners = boxes[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
            shares = corners / boxes[["width", "height", "width", "height"]].to_numpy(np.float64)
            for name, places in boxes.groupby("image_id").indices.items():
                self._boxes[str(name)] = shares[places].clip(0, 1), boxes["label"].to_numpy()[places]

    def annotations(self, index: int, height: int, width: int) -> dict[str, Any]:
        """Return boxes and masks of one image, in its pixels."""
        name = self.image_ids[index]
        found: dict[str, Any] = {}
        if name in self._boxes:
            shares, labels = self._boxes[name]
            found = {"boxes": shares * [width, height, width, height], "box_labels": labels}
        if self._masks is not None:
            found["masks"] = {"finding_masks": self._masks.draw(name, self.paths[index], height, width)}
        return found
