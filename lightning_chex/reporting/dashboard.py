"""Explanations as Weights & Biases shows them: pictures with boxes and masks that can be switched on and off.

Pictures and rows are numbered; publishers put patient numbers into the names of images, and those stay at home. The PNG
files that are written beside the checkpoints begin with the same numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_chex.reporting.explanation import Explanation
from lightning_chex.reporting.pictures import overlay

PICTURE_LIMIT = 48
"""W&B slows down beyond some fifty pictures a step."""

LEVELS = {1: (0.20, "strongest 20 %"), 2: (0.05, "strongest 5 %"), 3: (0.01, "strongest 1 %")}
"""Mask value -> share of the pixels and its name."""

TABLE_COLUMNS = ["epoch", "number", "target", "prediction", "truth", "bits", "iou"]


def image_arguments(explanations: Sequence[Explanation]) -> dict[str, list[Any]]:
    """Arguments of ``WandbLogger.log_image``: the overlays, their captions, the expert boxes, the map's levels."""
    shown = explanations[:PICTURE_LIMIT]
    # W&B keeps one list of names for all pictures: the last one given
    names = {e.target or 0: e.target_name for e in shown}
    return {
        "images": [overlay(e.image, e.saliency) for e in shown],
        "caption": [f"{number} | {e.caption}" for number, e in enumerate(shown)],
        "boxes": [{"expert": {"box_data": _boxes(e), "class_labels": names}} for e in shown],
        "masks": [
            {"map": {"mask_data": levels(e), "class_labels": {v: name for v, (_, name) in LEVELS.items()}}}
            for e in shown
        ],
    }


def table_rows(explanations: Sequence[Explanation], epoch: int) -> list[list[Any]]:
    """One row per explanation, in the order of ``TABLE_COLUMNS``."""
    return [
        [epoch, number, e.target_name, e.prediction, e.truth, e.bits, e.iou] for number, e in enumerate(explanations)
    ]


def levels(explanation: Explanation) -> NDArray[np.uint8]:
    """The map in steps, uint8 (H, W): 0 outside, then the keys of ``LEVELS`` from wide to narrow."""
    saliency = explanation.saliency.numpy()
    mask = np.zeros(saliency.shape, np.uint8)
    for value, (share, _) in LEVELS.items():
        mask[(saliency >= np.quantile(saliency, 1 - share)) & (saliency > 0)] = value
    return mask


def _boxes(explanation: Explanation) -> list[dict[str, Any]]:
    return [
        {
            "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
            "domain": "pixel",
            "class_id": explanation.target or 0,
            "box_caption": explanation.target_name,
        }
        for x1, y1, x2, y2 in explanation.boxes.tolist()
    ]
