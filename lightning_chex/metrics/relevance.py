"""Share of a map in a region without a threshold: pointing game, effective heat ratio, mass and rank accuracy.

All four are NaN where the region is empty: there is nothing to find. A map that is the same everywhere scores the
region's share of the image in each, which is chance. Where the heat itself counts (mass and effective heat ratio), the
negative part of a map is no heat, and a map without any heat scores 0.
"""

import torch
from torch import Tensor


def _nothing_to_find(score: Tensor, region: Tensor) -> Tensor:
    return score.masked_fill(~region.flatten(1).any(1), torch.nan)


def pointing_game(saliency: Tensor, region: Tensor) -> Tensor:
    """Does the strongest pixel lie in the region?

    Args:
        saliency: (B, H, W), any scale.
        region: bool (B, H, W).

    Returns:
        float32 (B,): 1 or 0; where several pixels are strongest, the share of them that hits.

    Source:
        Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018.
    """
    strongest = saliency == saliency.amax((1, 2), keepdim=True)
    hits = (strongest & region).flatten(1).sum(1) / strongest.flatten(1).sum(1)
    return _nothing_to_find(hits, region)


def mass_accuracy(saliency: Tensor, region: Tensor) -> Tensor:
    """Share of the map's heat that lies in the region.

    Args:
        saliency: (B, H, W); the negative part is no heat.
        region: bool (B, H, W).

    Returns:
        float32 (B,) in [0, 1]; 0 for a map without heat.

    Source:
        Arras et al., CLEVR-XAI, Information Fusion 2022 (relevance mass accuracy).
    """
    heat = saliency.double().clamp(min=0).flatten(1)
    inside = (heat * region.flatten(1)).sum(1)
    total = heat.sum(1)
    return _nothing_to_find(torch.where(total > 0, inside / total, 0.0).float(), region)


def rank_accuracy(saliency: Tensor, region: Tensor) -> Tensor:
    """Share of the strongest K pixels that lie in the region of K pixels.

    Args:
        saliency: (B, H, W), any scale.
        region: bool (B, H, W).

    Returns:
        float32 (B,) in [0, 1]. Where the K-th place is shared, the expectation over all orders of the equal pixels.

    Source:
        Arras et al., CLEVR-XAI, Information Fusion 2022 (relevance rank accuracy). K is the region's size: a measure
        of order, not a threshold rule.
    """
    flat = saliency.flatten(1)
    inside = region.flatten(1)
    size = inside.sum(1, keepdim=True)
    last = flat.sort(dim=1, descending=True).values.gather(1, (size - 1).clamp(min=0))
    above = flat > last
    tied = flat == last
    places = size - above.sum(1, keepdim=True)  # left for the tied ones
    hits = (above & inside).sum(1, keepdim=True) + places * (tied & inside).sum(1, keepdim=True) / tied.sum(
        1, keepdim=True
    )
    return _nothing_to_find((hits / size.clamp(min=1))[:, 0], region)


def effective_heat_ratio(saliency: Tensor, region: Tensor, quantiles: int = 101) -> Tensor:
    """Share of the heat in the region among the pixels above a quantile, averaged over quantiles from 0 to 1.

    Args:
        saliency: (B, H, W); the negative part is no heat.
        region: bool (B, H, W).
        quantiles: how many, evenly spaced, the ends included; >= 2. Averaged by the trapezoid rule.

    Returns:
        float32 (B,) in [0, 1]; 0 for a map without heat. Pixels equal to the quantile belong to those above it.

    Raises:
        ValueError: fewer than two quantiles.

    Source:
        Zhang et al., Fine-grained neural network explanation by identifying input features with predictive
        information, NeurIPS 2021.
    """
    if quantiles < 2:
        raise ValueError(f"quantiles={quantiles!r} must be at least 2")
    values, order = saliency.double().clamp(min=0).flatten(1).sort(dim=1, descending=True)
    total = values.cumsum(1)
    inside = (values * region.flatten(1).gather(1, order)).cumsum(1)
    # the pixel at each quantile, counted from the strongest, then the last pixel of its value
    count = values.shape[1]
    place = torch.linspace(count - 1, 0, quantiles, device=values.device, dtype=torch.float64).add(1e-9).floor().long()
    level = values[:, place]
    last = count - torch.searchsorted(values.flip(1), level) - 1
    ratio = inside.gather(1, last) / total.gather(1, last)
    # a map's maximum is above zero or there is no heat at all, and sums from the strongest on are above zero
    ratio = torch.where(total[:, -1:] > 0, ratio, 0.0)
    mean = torch.trapezoid(ratio, dx=1 / (quantiles - 1), dim=1).float()
    return _nothing_to_find(mean, region)
