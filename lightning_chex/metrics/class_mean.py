"""The accumulator around every measure that gives one number a map."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


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
