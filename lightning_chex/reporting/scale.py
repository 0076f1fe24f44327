"""The scale that the pictures of a run share, so that a map of little is drawn as little."""

import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from lightning_chex.reporting.explanation import BITS

FULL_COLOUR = 0.98
"""Quantile of the pixels of all maps, those of 0 left out, from which on they share the full colour: one strong map, or
a few pixels, must not make all others look empty."""

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
        The one of 1, 2, 5, 10, ... that is next to the `FULL_COLOUR` quantile; ``before`` if that is more.

    Example:
        >>> import torch
        >>> top_of([torch.full((4, 4), 1.8), torch.zeros(4, 4)])
        2.0
    """
    marked = [one[one > 0].flatten().numpy() for one in saliencies]
    pooled = np.concatenate(marked) if marked else np.zeros(0)
    # numpy: torch's quantile refuses so many values
    wanted = max(float(np.quantile(pooled, FULL_COLOUR)) if pooled.size else 0.0, LEAST_TOP.get(unit, 0.0))
    if not 0 < wanted < math.inf:
        return before
    power = 10.0 ** math.floor(math.log10(wanted))
    nearest = min((1, 2, 5, 10), key=lambda step: abs(math.log(step * power / wanted)))
    return max(before, float(f"{nearest * power:.0e}"))
