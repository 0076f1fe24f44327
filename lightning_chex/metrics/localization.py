"""The mean IoU of maps with regions under a fixed-fraction threshold, as it is logged at every validation."""

from typing import Any

from torch import Tensor

from lightning_chex.metrics.overlap import intersection_over_union
from lightning_chex.metrics.region_measure import RegionMeasure
from lightning_chex.thresholds import top_fraction_mask


class LocalizationIoU(RegionMeasure):
    """Mean IoU of saliency maps with regions, over maps and over classes.

    Args:
        num_classes: number of classes a map can explain.
        fraction: share of a map's pixels that is marked (`top_fraction_mask`).
    """

    def __init__(self, num_classes: int, fraction: float = 0.05, **kwargs: Any) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction!r} must lie in (0, 1]")
        super().__init__(self._iou, num_classes, **kwargs)
        self.fraction = fraction

    def _iou(self, saliency: Tensor, regions: Tensor) -> Tensor:
        return intersection_over_union(top_fraction_mask(saliency, self.fraction), regions)
