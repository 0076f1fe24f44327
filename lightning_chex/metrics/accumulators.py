"""Measures of maps as torchmetrics metrics: means over maps, over classes and per class."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_chex.metrics.overlap import intersection_over_union
from lightning_chex.thresholds import top_fraction_mask

MapMeasure = Callable[[Tensor, Tensor], Tensor]
"""Maps (B, H, W) and regions bool (B, H, W) to one value a map, (B,), such as ``pointing_game`` or ``oracle_iou``."""


class ClassMean(Metric):
    """Mean of a measure over maps, per class, and over classes.

    A value of NaN, by which the measures say that a map cannot be judged, is left out and not counted.

    Args:
        num_classes: number of classes a map can explain; 1 for a regression.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes!r} must be at least 1")
        self.add_state("total", torch.zeros(num_classes), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor, classes: Tensor) -> None:
        """Add one value a map, (B,), and the classes they explain, int64 (B,)."""
        counted = ~values.isnan()
        self.total.index_add_(0, classes, values.to(self.total).masked_fill(~counted, 0.0))
        self.count.index_add_(0, classes, counted.to(self.count))

    def compute(self) -> dict[str, Tensor]:
        """Mean over maps, mean over the classes that occur, mean per class (NaN where none occurs), and counts.

        All NaN when nothing was added.
        """
        per_class = self.total / self.count
        return {
            "mean": self.total.sum() / self.count.sum(),
            "class_mean": per_class.nanmean(),
            "per_class": per_class,
            "count": self.count,
        }


class RegionMeasure(ClassMean):
    """Mean of a measure of maps against regions, over maps, over classes and per class.

    Args:
        measure: a pure function, as those of this package; a map it gives NaN is not counted.
        num_classes: number of classes a map can explain; 1 for a regression.

    Example:
        >>> from lightning_chex.metrics import pointing_game
        >>> metric = RegionMeasure(pointing_game, num_classes=2)
        >>> saliency = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
        >>> regions = torch.tensor([[[False, True]], [[False, True]]])
        >>> metric.update(saliency, regions, torch.tensor([0, 1]))
        >>> metric.compute()["per_class"]
        tensor([1., 0.])
    """

    higher_is_better = True

    def __init__(self, measure: MapMeasure, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.measure = measure

    def update(self, saliency: Tensor, regions: Tensor, classes: Tensor) -> None:  # type: ignore[override]
        """Add maps (B, H, W), their regions bool (B, H, W) and the classes they explain, int64 (B,)."""
        super().update(self.measure(saliency, regions), classes)


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
