"""Measures of saliency maps: pure functions and accumulators around them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_chex.estimates import Estimate, Summary
from lightning_chex.metrics.bootstrap import summarize
from lightning_chex.metrics.correlation import is_constant, pearson, spearman
from lightning_chex.metrics.discrimination import auroc_estimate
from lightning_chex.metrics.imputation import linear_imputation
from lightning_chex.metrics.overlap import (
    accuracy_at,
    boxes_to_mask,
    intersection_over_detected,
    intersection_over_union,
    iou_at_levels,
    oracle_iou,
)
from lightning_chex.metrics.perturbation import (
    PerturbationCurves,
    area_under_curve,
    blurred,
    insertion_deletion,
    pixel_ranks,
)
from lightning_chex.metrics.places import corner_mask, edge_mask
from lightning_chex.metrics.relevance import effective_heat_ratio, mass_accuracy, pointing_game, rank_accuracy
from lightning_chex.metrics.road import RoadCurves, road
from lightning_chex.metrics.sensitivity import MaskedScores, mask_sizes, masked_scores, random_masks, sensitivity_n
from lightning_chex.metrics.severity import relevance_correlation, severity_correlation, zone_relevance, zone_score_map
from lightning_chex.metrics.thresholds import ClassLevel, Otsu, ThresholdRule, TopFraction, tuned_levels
from lightning_chex.thresholds import otsu_mask, relative_level_mask, top_fraction_mask

if TYPE_CHECKING:
    from lightning_chex.metrics.accumulators import ClassMean, LocalizationIoU, RegionMeasure

__all__ = [
    "ClassLevel",
    "ClassMean",
    "Estimate",
    "LocalizationIoU",
    "MaskedScores",
    "Otsu",
    "PerturbationCurves",
    "RegionMeasure",
    "RoadCurves",
    "Summary",
    "ThresholdRule",
    "TopFraction",
    "accuracy_at",
    "area_under_curve",
    "auroc_estimate",
    "blurred",
    "boxes_to_mask",
    "corner_mask",
    "edge_mask",
    "effective_heat_ratio",
    "insertion_deletion",
    "intersection_over_detected",
    "intersection_over_union",
    "iou_at_levels",
    "is_constant",
    "linear_imputation",
    "mask_sizes",
    "masked_scores",
    "mass_accuracy",
    "oracle_iou",
    "otsu_mask",
    "pearson",
    "pixel_ranks",
    "pointing_game",
    "random_masks",
    "rank_accuracy",
    "relative_level_mask",
    "relevance_correlation",
    "road",
    "sensitivity_n",
    "severity_correlation",
    "spearman",
    "summarize",
    "top_fraction_mask",
    "tuned_levels",
    "zone_relevance",
    "zone_score_map",
]

_ACCUMULATORS = frozenset({"ClassMean", "LocalizationIoU", "RegionMeasure"})


def __getattr__(name: str) -> Any:
    """Import an accumulator at its first use: with torchmetrics it takes longer than all functions, which need none."""
    if name in _ACCUMULATORS:
        return getattr(import_module("lightning_chex.metrics.accumulators"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
