"""Lung masks, bool (2, H, W), and the six Brixia zones, bool (6, H, W): pure functions.

The patient's right lung (image left) comes first. Zones A, B, C are its thirds of equal height from top to bottom, D,
E, F those of the left lung.
"""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Mask = npt.NDArray[np.bool_]

NUM_ZONES = 6

FRAGMENT = 0.1
"""A connected part smaller than this share of the largest one of its lung is a fragment, not lung."""

# horizontal distance of two lungs, in widths of a part, at least; parts of one lung are closer
_APART = 0.5
# columns between touching lungs have at most this share of the pixels of the narrower lung's fullest column
_VALLEY = 0.75


def split_lungs(mask: Mask) -> Mask:
    """Separate the lungs of a mask that holds both.

    Connected parts, fragments aside, are sorted from left to right and separated at the widest gap between their
    centres, if it is wide enough for two lungs. Otherwise the lungs may touch: then the number of pixels per column has
    a minimum, at which they are cut. If it has none, there is one lung, of the half of the image that holds its centre.
    Fragments belong to the lung on their side.

    Args:
        mask: (H, W).

    Returns:
        (2, H, W); every pixel of ``mask`` is in one of the two planes, and one of them may be empty.
    """
    columns = np.arange(mask.shape[1])
    labels, areas, widths, centres = _components(mask)
    if not len(areas):
        return np.zeros((2, *mask.shape), bool)
    large = areas >= FRAGMENT * areas.max()
    line = np.sort(centres[large])
    gaps = np.diff(line)
    if len(gaps) and gaps.max() >= _APART * widths[large].max():
        border = line[gaps.argmax() : gaps.argmax() + 2].mean()
        # whole parts, not columns: tilted lungs share columns
        at_left = np.concatenate([[False], centres < border])[labels]
        return np.stack([mask & at_left, mask & ~at_left])
    border = _valley(mask)
    if border is None:
        # one lung: all columns are on its side of the border
        centre = np.average(columns, weights=mask.sum(axis=0))
        border = mask.shape[1] if centre + 0.5 < mask.shape[1] / 2 else 0
    return np.stack([mask & (columns < border), mask & (columns >= border)])


def clean_lungs(lungs: Mask) -> Mask:
    """Make two lungs disjoint and free of fragments.

    Pixels claimed by both go to the lung whose centre is the nearer one along the row. Then every connected part
    smaller than ``FRAGMENT`` of the largest part of its lung is dropped.

    Args:
        lungs: (2, H, W).

    Returns:
        (2, H, W), a subset of ``lungs``.
    """
    lungs = lungs.copy()
    shared = lungs[0] & lungs[1]
    if shared.any():
        columns = np.arange(lungs.shape[2])
        right, left = (np.average(columns, weights=lung.sum(axis=0)) for lung in lungs)
        nearer_right = np.abs(columns - right) <= np.abs(columns - left)
        lungs[0] &= ~shared | nearer_right
        lungs[1] &= ~shared | ~nearer_right
    return np.stack([_without_fragments(lung) for lung in lungs])


def zone_masks(lungs: Mask) -> Mask:
    """Cut each lung into three parts of equal height, up to a pixel.

    Args:
        lungs: (2, H, W).

    Returns:
        (6, H, W), zones A to F; those of an empty lung are empty.
    """
    zones = np.zeros((NUM_ZONES, *lungs.shape[1:]), bool)
    for side, lung in enumerate(lungs):
        rows = np.flatnonzero(lung.any(axis=1))
        if len(rows):
            cuts = np.linspace(rows[0], rows[-1] + 1, 4).round().astype(int)
            for third in range(3):
                zones[3 * side + third, cuts[third] : cuts[third + 1]] = lung[cuts[third] : cuts[third + 1]]
    return zones


def lung_zones(lung_mask: Tensor) -> Tensor:
    """Cut each lung into its three zones, without overlaps and fragments (see ``clean_lungs``).

    Args:
        lung_mask: bool (2, H, W), the patient's right lung (image left), then the left one.

    Returns:
        bool (6, H, W), disjoint, A to F; the three zones of a missing lung are empty.

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
    return torch.from_numpy(zone_masks(clean_lungs(lung_mask.cpu().numpy()))).to(lung_mask.device)


def zones_from_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Cut the boxes around the lungs into their zones.

    Args:
        boxes: x1, y1, x2, y2 in pixels of the right (image left) and the left lung, (2, 4). Clipped to the
            image. A box without area, or of NaN, stands for a missing lung.
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
    """Cut the lungs of a segmentation network into their zones.

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


def _without_fragments(lung: Mask) -> Mask:
    labels, areas, _, _ = _components(lung)
    if not len(areas):
        return lung
    return np.concatenate([[False], areas >= FRAGMENT * areas.max()])[labels]


def _components(mask: Mask) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray, npt.NDArray]:
    """Connected parts (8 neighbours): number of each pixel's part from 1 (H, W), then areas, widths and centre x."""
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels, stats[1:, cv2.CC_STAT_AREA], stats[1:, cv2.CC_STAT_WIDTH], centroids[1:, 0]


def _valley(mask: Mask) -> int | None:
    """The column between two lungs that touch, or None if the mask does not look like two."""
    profile = mask.sum(axis=0)
    highest_left = np.maximum.accumulate(profile)
    highest_right = np.maximum.accumulate(profile[::-1])[::-1]
    lower = np.minimum(highest_left, highest_right)
    depth = lower - profile
    bottom = np.flatnonzero(depth == depth.max())
    cut = int(bottom[len(bottom) // 2])
    sides = sorted([int(profile[:cut].sum()), int(profile[cut:].sum())])
    if profile[cut] <= _VALLEY * lower[cut] and sides[0] >= FRAGMENT * sides[1]:
        return cut
    return None
