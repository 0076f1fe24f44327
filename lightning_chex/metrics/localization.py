"""How well a saliency map finds a region: IoU between its strongest pixels and the region."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def top_fraction_mask(saliency: Tensor, fraction: float) -> Tensor:
    """Mark the given share of each map's pixels, the strongest ones.

    The rule looks at the map alone, never at the region it will be judged by.

    Args:
        saliency: (B, H, W), any scale.
        fraction: share of the pixels to mark, in (0, 1].

    Returns:
        bool (B, H, W). Pixels equal to the weakest marked one are marked too, so a constant map marks every pixel.

    Example:
        >>> top_fraction_mask(torch.tensor([[[1.0, 5.0], [2.0, 3.0]]]), fraction=0.5)
        tensor([[[False,  True],
                 [False,  True]]])
    """
    flat = saliency.flatten(1)
    count = max(1, round(fraction * flat.shape[1]))
    threshold = flat.topk(count, dim=1).values[:, -1]
    return saliency >= threshold[:, None, None]


def boxes_to_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Mark the pixels whose centre lies in any of the boxes.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in pixels, x to the right and y down; N may be 0.
        size: (H, W).

    Returns:
        bool (H, W).
    """
    x = torch.arange(size[1], device=boxes.device) + 0.5
    y = torch.arange(size[0], device=boxes.device) + 0.5
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    columns = (x >= x1) & (x < x2)
    rows = (y >= y1) & (y < y2)
    return (rows[:, :, None] & columns[:, None, :]).any(0)


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """IoU of two masks, bool (B, H, W) each; float32 (B,) in [0, 1], 0 where both are empty."""
    intersection = (first & second).flatten(1).sum(1)
    union = (first | second).flatten(1).sum(1)
    return intersection / union.clamp(min=1)


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
