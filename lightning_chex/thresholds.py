"""From a map to a mask: one definition of each threshold rule, for the methods that binarise maps and for the measures.

A rule sees the map alone, never the region it will be judged by. A map of zeros says nothing, and marks nothing under
every rule; a map of another constant value marks every pixel, as the control ``EveryPixel`` is meant to.
"""

import torch
from torch import Tensor


def top_fraction_mask(saliency: Tensor, fraction: float) -> Tensor:
    """Mark the given share of each map's pixels, the strongest ones.

    Args:
        saliency: (B, H, W), any scale.
        fraction: share of the pixels to mark, in (0, 1].

    Returns:
        bool (B, H, W). Pixels equal to the weakest marked one are marked too, but not those of a map's least value, as
        the zeros of a sparse map: there fewer are marked. A constant map marks every pixel, a map of zeros none.

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
    marked = (saliency >= threshold[:, None, None]) & ~(sparse[:, None, None] & (saliency == low[:, None, None]))
    return marked & ~is_zero(saliency)[:, None, None]


def otsu_mask(saliency: Tensor) -> Tensor:
    """Mark the upper of the two groups of values that differ most (Otsu 1979).

    Every split between two different values is tried, without a histogram: the largest variance between the groups
    wins, the lowest such split when several do. The rule is the same for a map and the map scaled or shifted, unless
    that makes it zero everywhere.

    Args:
        saliency: (B, H, W), any scale.

    Returns:
        bool (B, H, W); a constant map marks every pixel, a map of zeros none.

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
    return (saliency >= values.gather(1, lowest)[:, :, None]) & ~is_zero(saliency)[:, None, None]


def relative_level_mask(saliency: Tensor, levels: Tensor) -> Tensor:
    """Mark the pixels from the given level on, between each map's least (0) and greatest (1) value.

    Args:
        saliency: (B, H, W), any scale.
        levels: in [0, 1], (B,).

    Returns:
        bool (B, H, W). The greatest value is always marked; a constant map marks every pixel, a map of zeros none.
    """
    low, high = saliency.flatten(1).aminmax(dim=1)
    # min with the maximum: rounding must not lift a level of 1 above it
    threshold = torch.minimum(torch.lerp(low, high, levels.to(saliency)), high)
    return (saliency >= threshold[:, None, None]) & ~is_zero(saliency)[:, None, None]


def root_mean_square_mask(saliency: Tensor, factor: float) -> Tensor:
    """Mark the values of at least ``factor`` times each map's root mean square.

    Args:
        saliency: >= 0, (B, H, W).
        factor: > 0.

    Returns:
        bool (B, H, W); a map of zeros marks nothing.
    """
    level = factor * saliency.flatten(1).square().mean(1).sqrt()
    return (saliency >= level[:, None, None]) & ~is_zero(saliency)[:, None, None]


def is_zero(saliency: Tensor) -> Tensor:
    """Say which maps (B, H, W) are zero everywhere, bool (B,)."""
    return (saliency == 0).flatten(1).all(1)
