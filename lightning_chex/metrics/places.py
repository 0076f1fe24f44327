"""Parts of an image that hold no finding: its edge and its corners."""

import torch
from torch import Tensor

EDGE = 0.06
"""Width of the edge, as a share of the image's side."""

CORNER = 0.2
"""Side of each corner, as a share of the image's side: where markers and text stand."""


def edge_mask(height: int, width: int, share: float = EDGE) -> Tensor:
    """Mark the edge of an image, bool (H, W).

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        share: width of the edge as a share of the side, above 0 and below .5; at least one pixel is marked.

    Raises:
        ValueError: a share outside its range.

    Example:
        >>> edge_mask(4, 4).sum()
        tensor(12)
    """
    down, across = (_pixels(side, share) for side in (height, width))
    mask = torch.ones(height, width, dtype=torch.bool)
    mask[down : height - down, across : width - across] = False
    return mask


def corner_mask(height: int, width: int, share: float = CORNER) -> Tensor:
    """Mark the four corners of an image, bool (H, W); for the arguments see `edge_mask`.

    Example:
        >>> corner_mask(10, 10).sum()
        tensor(16)
    """
    down, across = (_pixels(side, share) for side in (height, width))
    rows = torch.zeros(height, dtype=torch.bool)
    columns = torch.zeros(width, dtype=torch.bool)
    rows[:down] = rows[height - down :] = columns[:across] = columns[width - across :] = True
    return rows[:, None] & columns


def _pixels(side: int, share: float) -> int:
    if not 0 < share < 0.5:
        raise ValueError(f"share is {share}: give a share of the image's side, above 0 and below 0.5")
    return max(1, round(share * side))
