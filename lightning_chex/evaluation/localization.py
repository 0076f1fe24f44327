"""Measures of maps beside regions and zone scores: one value per case, without running the network."""

import torch
from torch import Tensor

from lightning_chex.evaluation.measures import LocalizedMaps, ScoredMaps, Values, compute_measures
from lightning_chex.maps import Cases
from lightning_chex.metrics import iou_at_levels, zone_relevance

LEVELS = torch.linspace(0, 1, 101)
"""The thresholds at which the IoU is taken, between a map's least and greatest value."""


def localize(saliency: Tensor, cases: Cases, fraction: float) -> tuple[Values, Values]:
    """Measure how well maps agree with the regions.

    Args:
        saliency: (N, H, W).
        cases: N cases.
        fraction: share of a map's pixels the rule ``top_fraction`` marks.

    Returns:
        Values (N,), and the IoU at every level (N, 101); NaN where there is no region.
    """
    maps = LocalizedMaps(saliency, cases, fraction)
    # without a region every overlap would be 0, which is not a failure of the map
    without_region = ~cases.regions.flatten(1).any(1)
    values = {}
    for key, value in compute_measures("regions", maps).items():
        values[key] = value.masked_fill(without_region, torch.nan)
    curve = iou_at_levels(saliency, cases.regions, LEVELS.to(saliency.device))
    curves = {"iou_at_level": curve.masked_fill(without_region[:, None], torch.nan)}
    return values | compute_measures("maps", maps), curves


def correlate_with_severity(saliency: Tensor, cases: Cases) -> tuple[Values, Values]:
    """Measure how well maps follow the scores of the zones; empty where there are no scores.

    Args:
        saliency: (N, H, W).
        cases: N cases.

    Returns:
        Values (N,); and each zone's mean relevance over that of all zones' pixels, (N, 6), with the scores (N, 6).
    """
    if cases.zones is None or cases.zone_scores is None:
        return {}, {}
    maps = ScoredMaps(saliency, cases.zones, cases.zone_scores)
    lungs = cases.zones.any(1, keepdim=True)
    mean = zone_relevance(saliency, lungs)
    # maps of different images and methods have no common unit
    relative = torch.where(mean > 0, maps.relevance / mean, torch.nan)
    return compute_measures("zones", maps), {"zone_relevance": relative, "zone_scores": cases.zone_scores}
