"""The mean IoU of maps with regions under a fixed-fraction threshold, as it is logged at every validation."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_chex.metrics.overlap import intersection_over_union
from lightning_chex.metrics.thresholds import top_fraction_mask


class LocalizationIoU(Metric):
    """Mean IoU of saliency maps with regions, over maps and over classes.

    Args:
        num_classes: number of classes a map can explain.
        fraction: share of a map's pixels that is marked (`top_fraction_mask`).
    """

    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, num_classes: int, fraction: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction!r} must lie in (0, 1]")
        self.fraction = fraction
        self.add_state("total", torch.zeros(num_classes), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, saliency: Tensor, regions: Tensor, classes: Tensor) -> None:
        """Add maps (B, H, W), their regions bool (B, H, W) and the classes they explain, int64 (B,)."""
        iou = intersection_over_union(top_fraction_mask(saliency, self.fraction), regions)
        self.total.index_add_(0, classes, iou.to(self.total))
        self.count.index_add_(0, classes, torch.ones_like(iou).to(self.count))

    def compute(self) -> dict[str, Tensor]:
        """Mean over maps, mean over the classes that occur, IoU per class (NaN where none occurs), and counts.

        All NaN when nothing was added.
        """
        per_class = self.total / self.count
        return {
            "mean": self.total.sum() / self.count.sum(),
            "class_mean": per_class.nanmean(),
            "per_class": per_class,
            "count": self.count,
        }
