"""Threshold rules with their settings. A rule sees the map and the class it explains, never a region.

What they mark is defined in ``lightning_chex.thresholds``.

The oracle, which does see the region, is therefore no rule: it is ``oracle_iou`` in ``lightning_chex.metrics.overlap``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_chex.thresholds import otsu_mask, relative_level_mask, top_fraction_mask

ThresholdRule = Callable[[Tensor, Tensor], Tensor]
"""Maps (B, H, W) and the classes they explain, int64 (B,), to masks bool (B, H, W)."""


@dataclass(frozen=True)
class TopFraction:
    """The strongest pixels, a fixed share of the map; see ``top_fraction_mask``.

    Args:
        fraction: in (0, 1].
    """

    fraction: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction!r} must lie in (0, 1]")

    def __call__(self, saliency: Tensor, classes: Tensor) -> Tensor:
        """Mark the maps (B, H, W); the classes do not matter."""
        return top_fraction_mask(saliency, self.fraction)


@dataclass(frozen=True)
class Otsu:
    """Threshold by Otsu's rule; see ``otsu_mask``."""

    def __call__(self, saliency: Tensor, classes: Tensor) -> Tensor:
        """Mark the maps (B, H, W); the classes do not matter."""
        return otsu_mask(saliency)


@dataclass(frozen=True)
class ClassLevel:
    """A level of its own for every class, tuned on other images; see ``relative_level_mask`` and ``tuned_levels``.

    Args:
        levels: one a class, each in [0, 1].
    """

    levels: Sequence[float]

    def __post_init__(self) -> None:
        outside = [level for level in self.levels if not 0 <= level <= 1]
        if outside or not self.levels:
            raise ValueError(f"levels={list(self.levels)!r}: give one a class, each in [0, 1]")

    def __call__(self, saliency: Tensor, classes: Tensor) -> Tensor:
        """Mark the maps (B, H, W), each from the level of its class on, int64 (B,)."""
        return relative_level_mask(saliency, torch.tensor(self.levels, device=saliency.device)[classes])


def tuned_levels(iou: Tensor, levels: Tensor, classes: Tensor, num_classes: int) -> list[float]:
    """Choose for every class the level at which its tuning maps have the highest mean IoU.

    Args:
        iou: (B, T), of the tuning maps at every level, as from ``iou_at_levels``. Not of the maps to be reported on.
        levels: (T,).
        classes: int64 (B,).
        num_classes: number of classes.

    Returns:
        One level a class, for ``ClassLevel``; the first of equally good ones. A class without a tuning map gets the
        level that is best for all maps together.

    Raises:
        ValueError: there is no tuning map.
    """
    if not len(iou):
        raise ValueError("iou holds no map: a level cannot be tuned on nothing, use TopFraction or Otsu")
    sums = torch.zeros(num_classes, iou.shape[1], dtype=iou.dtype, device=iou.device).index_add_(0, classes, iou)
    occurs = torch.bincount(classes, minlength=num_classes) > 0
    sums = torch.where(occurs[:, None], sums, iou.sum(0))
    return [float(level) for level in levels.to(iou.device)[sums.argmax(1)]]
