"""Measures of saliency maps: pure functions and accumulators around them."""

from lightning_chex.metrics.localization import (
    LocalizationIoU,
    boxes_to_mask,
    intersection_over_union,
    top_fraction_mask,
)

__all__ = ["LocalizationIoU", "boxes_to_mask", "intersection_over_union", "top_fraction_mask"]
