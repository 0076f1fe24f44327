"""Explanations for loggers: pictures with boxes and masks as layers, and rows of a table.

Pictures and rows have numbers instead of names: publishers put patient numbers into the names of images, which must not
be uploaded. The names of the PNG files beside the checkpoints begin with the same numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_chex.report.explanation import BITS, Explanation
from lightning_chex.report.logger_adapter import Box, Layer, Picture
from lightning_chex.report.pictures import BOX_COLOR, overlay, with_label
from lightning_chex.thresholds import top_fraction_mask

LEVELS = {1: (0.20, "strongest 20 %"), 2: (0.05, "strongest 5 %"), 3: (0.01, "strongest 1 %")}
"""Mask value -> share of the pixels and its name."""

AMOUNTS = {1: 0.5, 2: 1.0, 3: 2.0, 4: 4.0, 5: 8.0}
"""Mask value -> least bits per pixel; the same in every run, so that masks of different runs compare."""

TABLE_COLUMNS = [
    "epoch",
    "number",
    "target",
    "prediction",
    "truth",
    "bits",
    "convergence",
    "iou",
    "pointing",
    "rank",
    "method",
    "step",
    "rule",
    "empty",
]
"""Columns of the table of single maps.

``bits``: see ``BITS_NOTE`` for what they compare with. ``rank``: among the maps of a method at a step by IoU, 1 is the
best. ``rule``: the pixels that count as marked. ``empty``: 1 for a map that holds too little to mean anything, see
``lightning_chex/attribution/emptiness.py``.
"""

_BOX_RGB = tuple(int(BOX_COLOR[i : i + 2], 16) for i in (1, 3, 5))


def pictures_of(explanations: Sequence[Explanation], top: float | None = None) -> list[Picture]:
    """Return the explanations of one method as pictures: the X-ray with the expert boxes, and the map as masks.

    Args:
        explanations: numbered in this order.
        top: value of the map with the full colour, see ``overlay``.
    """
    pictures = []
    for number, explanation in enumerate(explanations):
        boxes = []
        for corners in explanation.boxes.tolist():
            boxes.append(Box(tuple(corners), explanation.target or 0, explanation.target_name))
        pictures.append(
            Picture(
                caption=f"{number} | {explanation.caption}",
                image=_grey(explanation.image),
                drawn=_side_by_side(explanation, top),
                boxes=boxes,
                layers=_layers(explanation),
            )
        )
    return pictures


def table_rows(explanations: Sequence[Explanation], epoch: int, step: int = 0, rule: str = "") -> list[list[Any]]:
    """Return one row per explanation of one method, in the order of ``TABLE_COLUMNS``."""
    ranks = _ranks(explanations)
    rows = []
    for number, explanation in enumerate(explanations):
        row = {
            "epoch": epoch,
            "number": number,
            "target": explanation.target_name,
            "prediction": explanation.prediction,
            "truth": explanation.truth,
            "bits": explanation.bits,
            "convergence": explanation.convergence,
            "iou": explanation.iou,
            "pointing": explanation.pointing,
            "rank": ranks.get(number),
            "method": explanation.method,
            "step": step,
            "rule": rule,
            "empty": int(explanation.empty),
        }
        rows.append([row[column] for column in TABLE_COLUMNS])
    return rows


def _ranks(explanations: Sequence[Explanation]) -> dict[int, int]:
    """Number of each explanation with an IoU -> its rank by IoU, 1 the best; of equal ones the first is better."""
    by_iou = []
    for number, explanation in enumerate(explanations):
        if explanation.iou is not None:
            by_iou.append((-explanation.iou, number))
    return {number: rank for rank, (_, number) in enumerate(sorted(by_iou), 1)}


def levels(explanation: Explanation) -> NDArray[np.uint8]:
    """Return the strongest pixels of a map, uint8 (H, W): keys of ``LEVELS``, 0 for all other pixels."""
    mask = np.zeros(tuple(explanation.saliency.shape), np.uint8)
    for value, (share, _) in LEVELS.items():
        mask[top_fraction_mask(explanation.saliency[None], share)[0].numpy()] = value
    return mask


def amounts(saliency: Tensor) -> NDArray[np.uint8]:
    """Return the steps of a map in bits per pixel, uint8 (H, W): keys of ``AMOUNTS``, 0 below all of them."""
    edges = np.array(list(AMOUNTS.values()), np.float32)
    return np.digitize(saliency.numpy(), edges).astype(np.uint8)


def _layers(explanation: Explanation) -> dict[str, Layer]:
    level_names = {value: name for value, (_, name) in LEVELS.items()}
    layers = {"map": Layer(levels(explanation), level_names)}
    if explanation.unit == BITS:
        amount_names = {value: f"{least:g} bits per pixel or more" for value, least in AMOUNTS.items()}
        layers["bits"] = Layer(amounts(explanation.saliency), amount_names)
    return layers


def _grey(image: Tensor) -> NDArray[np.uint8]:
    return np.round(255 * image.clamp(0, 1).numpy()).astype(np.uint8)


def _side_by_side(explanation: Explanation, top: float | None) -> NDArray[np.uint8]:
    """Draw X-ray and map with the boxes on both, uint8 (H + band, 2 W + 4, 3); the band holds class and figures."""
    xray = _grey(explanation.image)[..., None].repeat(3, axis=2)
    heatmap = overlay(explanation.image, explanation.saliency, top)
    for corners in explanation.boxes.round().int().tolist():
        _draw_box(xray, *corners)
        _draw_box(heatmap, *corners)
    gap = np.full((len(xray), 4, 3), 255, np.uint8)
    label = "  ".join([explanation.target_name, *explanation.figures])
    return with_label(np.concatenate([xray, gap, heatmap], axis=1), label)


def _draw_box(picture: NDArray[np.uint8], x1: int, y1: int, x2: int, y2: int) -> None:
    """Draw the outermost pixels of a box, in place."""
    inside = picture[max(0, y1) : y2, max(0, x1) : x2]
    if inside.size:
        inside[[0, -1]] = _BOX_RGB
        inside[:, [0, -1]] = _BOX_RGB
