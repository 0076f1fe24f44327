"""The six Brixia zones of an image: each lung cut into three of equal height.

A, B, C are the patient's right lung (image left) from top to bottom; D, E, F the left lung. The lungs come from mask
files (a sample's ``lung_mask``), from a network's probabilities, or from boxes around them.
"""

import torch
from torch import Tensor

from lightning_chex.data.lung_masks import clean_lungs

_PARTS = 3


def lung_zones(lung_mask: Tensor) -> Tensor:
    """Cut each lung into three parts of equal height.

    Overlaps and fragments are removed first, see ``clean_lungs``. The height of a lung runs from its first to its
    last row; the thirds differ by at most a pixel. A mask that holds both lungs in one plane goes through
    ``split_lungs`` before.

    Args:
        lung_mask: bool (2, H, W), the patient's right lung (image left), then the left one.

    Returns:
        bool (6, H, W), disjoint, in the order A to F; the three zones of a missing lung are empty.

    Raises:
        ValueError: a mask of another kind or shape.

    Example:
        >>> mask = torch.zeros(2, 9, 4, dtype=torch.bool)
        >>> mask[0, :, :2] = True  # nine rows of two pixels; the left lung is missing
        >>> lung_zones(mask).sum(dim=(1, 2))
        tensor([6, 6, 6, 0, 0, 0])
    """
    if lung_mask.dtype != torch.bool or lung_mask.ndim != 3 or len(lung_mask) != 2:
        raise ValueError(
            f"lung_mask is {lung_mask.dtype} {tuple(lung_mask.shape)}: give bool (2, H, W), the right lung first"
        )
    lungs = torch.from_numpy(clean_lungs(lung_mask.cpu().numpy())).to(lung_mask.device)
    zones = torch.zeros(2 * _PARTS, *lung_mask.shape[1:], dtype=torch.bool, device=lung_mask.device)
    for side, lung in enumerate(lungs):
        rows = lung.any(dim=1).nonzero()
        if not len(rows):
            continue
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        edges = [top + round(part * (bottom - top) / _PARTS) for part in range(_PARTS + 1)]
        for part in range(_PARTS):
            band = slice(edges[part], edges[part + 1])
            zones[_PARTS * side + part, band] = lung[band]
    return zones


def zones_from_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Cut the boxes around the lungs into three parts of equal height.

    Args:
        boxes: x1, y1, x2, y2 in pixels of the right (image left) and the left lung, (2, 4). What lies outside the
            image is cut off. A box without area, or of NaN, stands for a missing lung.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        bool (6, H, W) as from ``lung_zones``; a pixel is in a box if its centre is.

    Raises:
        ValueError: boxes of another shape, or one whose corners are in the wrong order.
    """
    if boxes.shape != (2, 4):
        raise ValueError(f"boxes has shape {tuple(boxes.shape)}: give (2, 4), the right lung first")
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise ValueError(f"boxes is {boxes.tolist()}: x2 and y2 must not be less than x1 and y1")
    x1, y1, x2, y2 = boxes.float()[..., None, None].unbind(dim=1)
    x = torch.arange(width, device=boxes.device) + 0.5
    y = torch.arange(height, device=boxes.device)[:, None] + 0.5
    return lung_zones((x1 <= x) & (x < x2) & (y1 <= y) & (y < y2))


def zones_from_probabilities(probabilities: Tensor, threshold: float = 0.5) -> Tensor:
    """Cut the lungs that a segmentation network finds into three parts of equal height.

    Args:
        probabilities: of the right (image left) and the left lung, (2, H, W), as ``SegmentationTask.score`` gives them
            for one image. Where both pass the threshold, the larger one has the pixel.
        threshold: a pixel is lung from here on, above 0 to below 1.

    Returns:
        bool (6, H, W) as from ``lung_zones``.

    Raises:
        ValueError: another shape, or a threshold outside its range.
    """
    if probabilities.ndim != 3 or len(probabilities) != 2:
        raise ValueError(f"probabilities has shape {tuple(probabilities.shape)}: give (2, H, W), the right lung first")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}: give a probability above 0 and below 1")
    right, left = probabilities
    return lung_zones((probabilities >= threshold) & torch.stack([right >= left, left > right]))
