"""Rules that turn a map into a mask; each looks at the map alone."""

from typing import Literal

import torch
from torch import Tensor

ThresholdRule = Literal["rms", "top_fraction", "otsu"]

OTSU_BINS = 256


def binarize(maps: Tensor, rule: ThresholdRule, threshold: float) -> Tensor:
    """Mark the strong pixels of each map.

    Args:
        maps: >= 0, (N, H, W).
        rule: ``rms``: values of at least ``threshold`` times the map's root mean square; ``top_fraction``: the
            strongest share ``threshold`` of the pixels, and what equals the weakest of them; ``otsu``: what lies above
            the level that separates the histogram best, ``threshold`` not being used.
        threshold: > 0; at most 1 for ``top_fraction``.

    Returns:
        bool (N, H, W); a map of zeros marks nothing.

    Raises:
        ValueError: the rule is unknown or the threshold outside its range.
    """
    if rule not in ("rms", "top_fraction", "otsu"):
        raise ValueError(f"rule={rule!r} is unknown; choose rms, top_fraction or otsu")
    if not threshold > 0 or (rule == "top_fraction" and threshold > 1):
        raise ValueError(f"threshold={threshold!r} does not suit rule={rule!r}: > 0, and at most 1 for top_fraction")
    flat = maps.flatten(1)
    if rule == "rms":
        level = threshold * flat.square().mean(1).sqrt()
    elif rule == "top_fraction":
        level = flat.topk(max(1, round(threshold * flat.shape[1])), dim=1).values[:, -1]
    else:
        level = otsu_level(maps)
    return (maps >= level[:, None, None]) & (maps > 0)


def otsu_level(maps: Tensor) -> Tensor:
    """Level that splits each map's histogram of 256 bins into two classes of least variance (Otsu 1979).

    Args:
        maps: (N, H, W).

    Returns:
        (N,): the lower edge of the first bin of the upper class.
    """
    flat = maps.flatten(1).double()
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    width = ((high - low) / OTSU_BINS).clamp(min=torch.finfo(torch.float64).tiny)
    bins = ((flat - low) / width).long().clamp(0, OTSU_BINS - 1)
    share = torch.zeros(len(flat), OTSU_BINS, dtype=torch.float64, device=maps.device)
    share.scatter_add_(1, bins, torch.ones_like(flat))
    share /= flat.shape[1]
    centres = torch.arange(OTSU_BINS, device=maps.device) + 0.5
    below = share.cumsum(1)
    moment = (share * centres).cumsum(1)
    total = moment[:, -1:]
    # between-class variance when the lower class ends with this bin; 0 where a class is empty
    between = (total * below - moment).square() / (below * (1 - below)).clamp(min=1e-12)
    return (low[:, 0] + width[:, 0] * (between[:, :-1].argmax(1) + 1)).to(maps.dtype)
