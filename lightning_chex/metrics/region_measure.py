"""Any measure of maps against regions as a torchmetrics metric: per class, over maps and over classes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lightning_chex.metrics.class_mean import ClassMean

Measure = Callable[[Tensor, Tensor], Tensor]
"""Maps (B, H, W) and regions bool (B, H, W) to one value a map, (B,), such as ``pointing_game`` or ``oracle_iou``."""


class RegionMeasure(ClassMean):
    """Mean of a measure of maps against regions, over maps, over classes and per class.

    Args:
        measure: a pure function, as those of this package; a map it gives NaN is not counted.
        num_classes: number of classes a map can explain; 1 for a regression.

    Example:
        >>> import torch
        >>> from lightning_chex.metrics import pointing_game
        >>> metric = RegionMeasure(pointing_game, num_classes=2)
        >>> saliency = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
        >>> regions = torch.tensor([[[False, True]], [[False, True]]])
        >>> metric.update(saliency, regions, torch.tensor([0, 1]))
        >>> metric.compute()["per_class"]
        tensor([1., 0.])
    """

    higher_is_better = True

    def __init__(self, measure: Measure, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.measure = measure

    def update(self, saliency: Tensor, regions: Tensor, classes: Tensor) -> None:  # type: ignore[override]
        """Add maps (B, H, W), their regions bool (B, H, W) and the classes they explain, int64 (B,)."""
        super().update(self.measure(saliency, regions), classes)
