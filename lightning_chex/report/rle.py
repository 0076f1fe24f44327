"""Masks as run lengths in the compressed form of the COCO data set, which CheXlocalize reads.

The mask is read column by column. Its run lengths, background first (0 if the first pixel is marked), are written as
text: the first three as they are, each later one as its difference to the one two before it. A number is cut into
groups of five bits in two's complement, the lowest first; a sixth bit says that another group follows, and 48 is added
to make each group a printable character.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode one mask.

    Args:
        mask: bool (H, W), H W >= 1.

    Returns:
        ``size``, [H, W], and ``counts``, the text.

    Raises:
        ValueError: not such a mask.

    Example:
        >>> encode_mask(np.array([[False, True], [False, True]]))
        {'size': [2, 2], 'counts': '22'}
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        raise ValueError(f"mask is {mask.dtype} {mask.shape}: give bool (H, W) with at least one pixel")
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate([[0], changes, [pixels.size]])
    if pixels[0]:
        # an empty run of background
        edges = np.concatenate([[0], edges])
    lengths = np.diff(edges).astype(np.int64)
    runs = lengths.copy()
    runs[3:] -= lengths[1:-2]
    return {"size": list(mask.shape), "counts": "".join(_as_text(int(run)) for run in runs)}


def _as_text(number: int) -> str:
    characters = []
    more = True
    while more:
        group = number & 31
        number >>= 5  # the shift keeps the sign
        # the number ends when only copies of the sign remain, and the last group's highest bit is that sign
        rest = -1 if group & 16 else 0
        more = number != rest
        characters.append(chr(48 + group + 32 * more))
    return "".join(characters)
