"""The scale that the pictures of a run share, so that a map of little is drawn as little."""

import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from lightning_chex.reporting.explanation import BITS

FULL_COLOUR = 0.995
"""Quantile of the strongest map's pixels that has the full colour: a few pixels must not darken all others."""

LEAST_TOP = {BITS: 0.2}
"""No scale ends below this: what is less in all maps of a run looks like nothing. The strongest cells of a network that
has learnt something hold some bits per pixel."""


def top_of(saliencies: Iterable[Tensor], unit: str = BITS, before: float = 0.0) -> float:
    """Where the scale of a run ends after these maps: a round number that grows in steps, and never falls.

    Args:
        saliencies: maps (H, W) of one method.
        unit: of their values.
        before: where it ended before them.

    Returns:
        1, 2 or 5 times a power of ten, at least the `FULL_COLOUR` quantile of every map; ``before`` if that is more.

    Example:
        >>> import torch
        >>> top_of([torch.full((4, 4), 0.3), torch.full((4, 4), 1.3)])
        2.0
    """
    # numpy: torch's quantile refuses large maps
    strongest = max((float(np.quantile(one.numpy(), FULL_COLOUR)) for one in saliencies), default=0.0)
    wanted = max(strongest, LEAST_TOP.get(unit, 0.0))
    if not 0 < wanted < math.inf:
        return before
    power = 10.0 ** math.floor(math.log10(wanted))
    return max(before, next(float(f"{step * power:.0e}") for step in (1, 2, 5, 10) if step * power >= wanted * 0.9999))
