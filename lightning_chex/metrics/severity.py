"""Does a map grow where a radiologist scored the lung worse? Correlation with zone scores."""

import torch
from torch import Tensor

from lightning_chex.metrics.correlation import is_constant, pearson


def _check(saliency: Tensor, zones: Tensor, scores: Tensor | None = None) -> None:
    if zones.ndim != 4 or zones.dtype != torch.bool or (len(zones), *zones.shape[2:]) != tuple(saliency.shape):
        raise ValueError(
            f"zones is {zones.dtype} {tuple(zones.shape)} for saliency {tuple(saliency.shape)}: "
            "give bool (B, Z, H, W) for (B, H, W)"
        )
    if scores is not None and scores.shape != zones.shape[:2]:
        raise ValueError(f"scores {tuple(scores.shape)} do not match zones {tuple(zones.shape)}: one a zone, (B, Z)")


def zone_score_map(zones: Tensor, scores: Tensor) -> Tensor:
    """Paint each zone with its score; what is in no zone is 0.

    Args:
        zones: bool (B, Z, H, W), disjoint.
        scores: (B, Z).

    Returns:
        float32 (B, H, W).
    """
    return torch.einsum("bzhw,bz->bhw", zones.float(), scores.float())


def severity_correlation(saliency: Tensor, zones: Tensor, scores: Tensor) -> Tensor:
    """Pearson correlation of the flattened map with the map that carries each zone's score.

    It rewards a map for the outline of the lungs, too: report it beside a map that marks the lung field.

    Args:
        saliency: (B, H, W), any scale.
        zones: bool (B, Z, H, W), disjoint.
        scores: (B, Z), 0 to 3 in Brixia.

    Returns:
        float64 (B,) in [-1, 1]. 0 for a constant map: it says nothing. NaN where the scores paint a constant map, as
        when all are 0 or every zone is empty: no map could be judged.

    Raises:
        ValueError: shapes that do not match.
    """
    _check(saliency, zones, scores)
    flat = saliency.flatten(1)
    painted = zone_score_map(zones, scores).flatten(1)
    silent = is_constant(flat) & ~is_constant(painted)
    return pearson(flat, painted).masked_fill(silent, 0.0)


def zone_relevance(saliency: Tensor, zones: Tensor) -> Tensor:
    """Mean of the map over each zone.

    Args:
        saliency: (B, H, W).
        zones: bool (B, Z, H, W).

    Returns:
        float32 (B, Z), in the map's unit; NaN for an empty zone.

    Raises:
        ValueError: shapes that do not match.
    """
    _check(saliency, zones)
    sums = torch.einsum("bzhw,bhw->bz", zones.double(), saliency.double())
    return (sums / zones.flatten(2).sum(2)).float()


def relevance_correlation(relevance: Tensor, scores: Tensor) -> Tensor:
    """Pearson correlation, within each image, of its zones' mean relevance with their scores.

    Unlike a correlation over the zones of all images, it does not depend on how maps of different images are scaled.

    Args:
        relevance: (B, Z), as from ``zone_relevance``; a zone of NaN is left out.
        scores: (B, Z).

    Returns:
        float64 (B,) in [-1, 1]. 0 where relevance is constant over the zones; NaN where the scores are, or fewer than
        two zones are left.
    """
    if relevance.shape != scores.shape:
        raise ValueError(f"relevance {tuple(relevance.shape)} and scores {tuple(scores.shape)} do not match")
    known = ~relevance.isnan()
    # an absent zone takes the mean of the others, which changes neither covariance nor variances
    count = known.sum(1, keepdim=True)
    filled = [
        torch.where(known, values.double(), torch.where(known, values.double(), 0.0).sum(1, keepdim=True) / count)
        for values in (relevance, scores)
    ]
    # whether they vary is judged at the precision that relevance came in
    spread = [is_constant(values.float()) for values in filled]
    return (
        pearson(*filled).masked_fill(spread[0] & ~spread[1], 0.0).masked_fill(spread[1] | (count[:, 0] < 2), torch.nan)
    )
