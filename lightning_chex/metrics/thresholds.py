"""Named rules that turn a map into a mask. A rule sees the map and the class it explains, never a region.

The oracle, which does see the region, is therefore no rule: it is ``oracle_iou`` in ``lightning_chex.metrics.overlap``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ThresholdRule = Callable[[Tensor, Tensor], Tensor]
"""Maps (B, H, W) and the classes they explain, int64 (B,), to masks bool (B, H, W)."""


def top_fraction_mask(saliency: Tensor, fraction: float) -> Tensor:
    """Mark the given share of each map's pixels, the strongest ones.

    The rule looks at the map alone, never at the region it will be judged by.

    Args:
        saliency: (B, H, W), any scale.
        fraction: share of the pixels to mark, in (0, 1].

    Returns:
        bool (B, H, W). Pixels equal to the weakest marked one are marked too, but not those of a map's least value, as
        the zeros of a sparse map: there fewer are marked. A constant map marks every pixel.

    Example:
        >>> top_fraction_mask(torch.tensor([[[1.0, 5.0], [2.0, 3.0]]]), fraction=0.5)
        tensor([[[False,  True],
                 [False,  True]]])
    """
    flat = saliency.flatten(1)
    count = max(1, round(fraction * flat.shape[1]))
    threshold = flat.topk(count, dim=1).values[:, -1]
    low, high = flat.aminmax(dim=1)
    sparse = (threshold == low) & (low < high) & (count < flat.shape[1])
    return (saliency >= threshold[:, None, None]) & ~(sparse[:, None, None] & (saliency == low[:, None, None]))


def otsu_mask(saliency: Tensor) -> Tensor:
    """Mark the upper of the two groups of values that differ most (Otsu 1979).

    Every split between two different values is tried, without a histogram: the largest variance between the groups
    wins, the lowest such split when several do. The rule is the same for a map and the map scaled or shifted.

    Args:
        saliency: (B, H, W), any scale.

    Returns:
        bool (B, H, W); a constant map marks every pixel.

    Example:
        >>> otsu_mask(torch.tensor([[[0.0, 1.0, 8.0, 9.0]]]))
        tensor([[[False, False,  True,  True]]])
    """
    flat = saliency.flatten(1)
    values = flat.sort(dim=1).values
    centred = values.double() - values.double().mean(1, keepdim=True)
    count = values.shape[1]
    lower = torch.arange(1, count, device=flat.device)  # pixels in the lower group
    # the sums of the groups are opposite, so the variance between them is this, up to a factor
    between = centred.cumsum(1)[:, :-1].square() / (lower * (count - lower))
    between = between.masked_fill(values[:, 1:] == values[:, :-1], -1.0)  # equal values stay together
    lowest = torch.zeros(len(flat), 1, dtype=torch.int64, device=flat.device)
    if count > 1:
        best = between.argmax(1, keepdim=True)
        lowest = torch.where(values[:, :1] == values[:, -1:], lowest, best + 1)
    return saliency >= values.gather(1, lowest)[:, :, None]


def relative_level_mask(saliency: Tensor, levels: Tensor) -> Tensor:
    """Mark the pixels from the given level on, between each map's least (0) and greatest (1) value.

    Args:
        saliency: (B, H, W), any scale.
        levels: in [0, 1], (B,).

    Returns:
        bool (B, H, W). The greatest value is always marked; a constant map marks every pixel.
    """
    low, high = saliency.flatten(1).aminmax(dim=1)
    # min with the maximum: rounding must not lift a level of 1 above it
    threshold = torch.minimum(torch.lerp(low, high, levels.to(saliency)), high)
    return saliency >= threshold[:, None, None]


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
    """What Otsu's rule calls the upper group; see ``otsu_mask``."""

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
