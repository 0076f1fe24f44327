"""The border of a region as a path of pixel edges."""

from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def outline(mask: Tensor) -> str:
    """Draw every edge between a pixel inside and one outside, neighbouring edges joined to one stroke.

    Args:
        mask: bool (H, W).

    Returns:
        Path data for SVG, in pixels; empty for an empty mask.

    Example:
        >>> import torch
        >>> outline(torch.tensor([[True, True]]))
        'M0 0H2M0 1H2M0 0V1M2 0V1'
    """
    padded = np.pad(mask.numpy().astype(bool), 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # above each row, (H + 1, W)
    down = (padded[1:-1, 1:] != padded[1:-1, :-1]).T  # left of each column, (W + 1, H)
    rows = [f"M{start} {y}H{end}" for y, start, end in _runs(across)]
    columns = [f"M{x} {start}V{end}" for x, start, end in _runs(down)]
    return "".join(rows + columns)


def _runs(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Line, beginning and end of every run of edges."""
    found = []
    for line in np.flatnonzero(edges.any(axis=1)).tolist():
        place = 0
        for inside, run in groupby(edges[line].tolist()):
            length = len(list(run))
            if inside:
                found.append((line, place, place + length))
            place += length
    return found
