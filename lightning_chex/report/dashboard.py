"""Explanations as loggers show them, pictures with boxes and masks as layers, and as rows of a table.

Pictures and rows are numbered instead of named: publishers put patient numbers into the names of images, which are not
uploaded. The PNG files beside the checkpoints begin with the same numbers.
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
"""Mask value -> bits per pixel from which it is given: the same in every run, so a map of little has no mask."""

TABLE_COLUMNS = [
    *("epoch", "number", "target", "prediction", "truth", "bits", "convergence", "iou"),
    *("pointing", "rank", "method", "step", "rule", "empty"),
]
"""Of the table of single maps; see ``BITS_NOTE`` for what bits compare with. ``rank`` is the place among the maps of a
method at a step by IoU, 1 the best; ``rule`` says which pixels count as marked; ``empty`` is 1 for a map that holds too
little to say anything, see ``lightning_chex/attribution/emptiness.py``."""

_BOX_RGB = tuple(int(BOX_COLOR[i : i + 2], 16) for i in (1, 3, 5))


def pictures_of(explanations: Sequence[Explanation], top: float | None = None) -> list[Picture]:
    """The explanations of one method as pictures: the X-ray, and on it the expert boxes and the map in steps.

    Args:
        explanations: they are numbered in this order.
        top: value of the map with the full colour, see ``overlay``.
    """
    return [
        Picture(
            caption=f"{number} | {e.caption}",
            image=_grey(e.image),
            drawn=_beside(e, top),
            boxes=[Box(tuple(corners), e.target or 0, e.target_name) for corners in e.boxes.tolist()],
            layers=_layers(e),
        )
        for number, e in enumerate(explanations)
    ]


def table_rows(explanations: Sequence[Explanation], epoch: int, step: int = 0, rule: str = "") -> list[list[Any]]:
    """One row per explanation of one method, in the order of ``TABLE_COLUMNS``."""
    by_iou = sorted((-e.iou, number) for number, e in enumerate(explanations) if e.iou is not None)
    rank = {number: place for place, (_, number) in enumerate(by_iou, 1)}
    return [
        [
            *(epoch, number, e.target_name, e.prediction, e.truth, e.bits, e.convergence, e.iou),
            *(e.pointing, rank.get(number), e.method, step, rule, int(e.empty)),
        ]
        for number, e in enumerate(explanations)
    ]


def levels(explanation: Explanation) -> NDArray[np.uint8]:
    """The map in steps, uint8 (H, W): 0 outside, then the keys of ``LEVELS`` from wide to narrow."""
    mask = np.zeros(tuple(explanation.saliency.shape), np.uint8)
    for value, (share, _) in LEVELS.items():
        mask[top_fraction_mask(explanation.saliency[None], share)[0].numpy()] = value
    return mask


def amounts(saliency: Tensor) -> NDArray[np.uint8]:
    """A map of bits per pixel in steps, uint8 (H, W): the keys of ``AMOUNTS``, 0 below all of them."""
    return np.digitize(saliency.numpy(), np.array(list(AMOUNTS.values()), np.float32)).astype(np.uint8)


def _layers(explanation: Explanation) -> dict[str, Layer]:
    found = {"map": Layer(levels(explanation), {value: name for value, (_, name) in LEVELS.items()})}
    if explanation.unit == BITS:
        names = {value: f"{least:g} bits per pixel or more" for value, least in AMOUNTS.items()}
        found["bits"] = Layer(amounts(explanation.saliency), names)
    return found


def _grey(image: Tensor) -> NDArray[np.uint8]:
    return np.round(255 * image.clamp(0, 1).numpy()).astype(np.uint8)


def _beside(explanation: Explanation, top: float | None) -> NDArray[np.uint8]:
    """X-ray and map side by side with the boxes on both, uint8 (H + a band with class and figures, 2 W + 4, 3)."""
    plain = _grey(explanation.image)[..., None].repeat(3, axis=2)
    pair = [plain, overlay(explanation.image, explanation.saliency, top)]
    for corners in explanation.boxes.round().int().tolist():
        for picture in pair:
            _frame(picture, *corners)
    gap = np.full((len(plain), 4, 3), 255, np.uint8)
    label = "  ".join([explanation.target_name, *explanation.figures])
    return with_label(np.concatenate([pair[0], gap, pair[1]], axis=1), label)


def _frame(picture: NDArray[np.uint8], x1: int, y1: int, x2: int, y2: int) -> None:
    """Draw the outermost pixels of a box, in place."""
    inside = picture[max(0, y1) : y2, max(0, x1) : x2]
    if inside.size:
        inside[[0, -1]] = _BOX_RGB
        inside[:, [0, -1]] = _BOX_RGB
