"""Overlap of the marked pixels of a map with a region: IoU and related measures, at one threshold or at all."""

import torch
from torch import Tensor

from lightning_chex.thresholds import is_zero, relative_level_mask


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


def intersection_over_detected(marked: Tensor, region: Tensor) -> Tensor:
    """Share of the marked pixels that lie in the region (IoBB: divided by the detected area).

    Wang et al. 2017 take boxes around the marked pixels, here the pixels themselves are taken.

    Args:
        marked: bool (B, H, W), what a threshold rule made of the map.
        region: bool (B, H, W).

    Returns:
        float32 (B,) in [0, 1]; 0 where nothing is marked.
    """
    return (marked & region).flatten(1).sum(1) / marked.flatten(1).sum(1).clamp(min=1)


def accuracy_at(overlap: Tensor, thresholds: Tensor) -> Tensor:
    """Return whether each map reaches each overlap; averaged over maps, the T(IoU) or T(IoBB) accuracy.

    Args:
        overlap: IoU or IoBB, (B,).
        thresholds: T, (K,), such as 0.1, 0.25, 0.5.

    Returns:
        float32 (B, K) in {0, 1}, 1 where the overlap is at least T; NaN where the overlap is NaN.
    """
    reached = (overlap[:, None] >= thresholds.to(overlap)).float()
    return reached.masked_fill(overlap.isnan()[:, None], torch.nan)


def iou_at_levels(saliency: Tensor, region: Tensor, levels: Tensor) -> Tensor:
    """IoU at every threshold, each a level between a map's least and greatest value.

    Args:
        saliency: (B, H, W), any scale.
        region: bool (B, H, W).
        levels: in [0, 1], (T,).

    Returns:
        float32 (B, T).
    """
    marked = [relative_level_mask(saliency, level.expand(len(saliency))) for level in levels]
    return torch.stack([intersection_over_union(mask, region) for mask in marked], dim=1)


def oracle_iou(saliency: Tensor, region: Tensor) -> Tensor:
    """Highest IoU that any threshold on the map could reach: an upper bound, not a result.

    The threshold is chosen by the region the map is judged by, for each map anew. Every value of the map is tried.

    Args:
        saliency: (B, H, W), any scale.
        region: bool (B, H, W).

    Returns:
        float32 (B,); at least the region's share of the image, which marking every pixel gives; but 0 for a map of
        zeros, which marks nothing under every rule.

    Example:
        >>> oracle_iou(torch.tensor([[[3.0, 2.0, 1.0]]]), torch.tensor([[[True, True, False]]]))
        tensor([1.])
    """
    values, order = saliency.flatten(1).sort(dim=1, descending=True)
    inside = region.flatten(1).gather(1, order)
    marked = torch.arange(1, values.shape[1] + 1, device=values.device)
    intersection = inside.cumsum(1)
    iou = intersection / (marked + inside.sum(1, keepdim=True) - intersection)
    # a threshold cannot part equal values
    iou[:, :-1] = iou[:, :-1].masked_fill(values[:, 1:] == values[:, :-1], 0.0)
    return iou.amax(1).masked_fill(is_zero(saliency), 0.0)
