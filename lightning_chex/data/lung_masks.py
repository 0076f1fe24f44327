"""Two lungs out of one mask, and clean lungs out of two: pure functions of arrays.

A lung mask is bool (2, H, W): the patient's right lung, which lies at the image's left, then the left lung.
"""

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

FRAGMENT = 0.1
"""A connected part smaller than this share of the largest one of its lung is a fragment, not lung."""

# parts of one lung lie above each other; those of two lungs lie this share of a part's width apart, or more
_APART = 0.5
# lungs that touch have fewer pixels in the columns between them: at most this share of what the slimmer one reaches
_VALLEY = 0.75


def split_lungs(mask: Mask) -> Mask:
    """Tell apart the lungs of a mask that holds both.

    Fragments aside, connected parts are lined up from left to right and parted at the widest gap between their
    centres, if it is wide enough for two lungs. Otherwise all may be lungs that touch: then there is a valley in the
    number of pixels per column, and the cut runs along its bottom. If there is none either, only one lung is there,
    and the half of the image that holds its centre says which. Fragments go with the lung whose side they lie on.

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
