"""The colour scale that the pictures of a run share, so that equal colours stand for equal values.

Marked pixels are those that hold at least `MARKED_SHARE` of the peak of their map, which is its `PEAK` quantile: the
maximum may be a single outlier. The scale ends at the 99th percentile of the marked pixels of all maps, so about 1 % of
them saturate. Pixels below that share are left out: maps of bits are hardly ever exactly zero, and a quantile over
whole images would depend on how much background they show.

The first validation sets the limit. A later one widens it if more than 1 % of its own marked pixels would saturate; the
limit never falls. Pictures that were drawn before keep the limit that their colour bar shows; the film strip is drawn
again at every validation, all columns on the limit of the run.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_chex.report.explanation import BITS

MARKED_SHARE = 0.1
"""A pixel counts as marked from this share of the peak of its map on."""

PEAK = 0.995
"""Quantile of all pixels of a map that counts as its peak; where that is 0, all pixels above 0 are marked."""

SATURATED = 0.01
"""Share of the marked pixels that lie beyond the end of the scale."""

LEAST_LIMIT = {BITS: 0.2}
"""No scale ends below this: what is less in all maps of a run looks like nothing. The strongest cells of a network that
has learnt something hold some bits per pixel."""


class ScaleHistogram:
    """Counts of marked pixels between neighbouring numbers of two significant digits.

    Counts add up in any order, so the limit depends neither on the order of maps nor on how they are divided among
    processes, and no pixel has to be kept.

    Example:
        >>> import torch
        >>> histogram = ScaleHistogram()
        >>> histogram.add(torch.full((4, 4), 1.82))
        >>> histogram.limit()
        1.9
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()

    def add(self, saliency: Tensor) -> None:
        """Count the marked pixels of a map (H, W), >= 0; values that are not finite are left out."""
        values = _marked(saliency)
        if not values.size:
            return
        exponents = np.floor(np.log10(values)).astype(int) - 1
        # a float32 of 0.2 is a little above 0.2 and must not count as 0.21
        digits = np.ceil(values / 10.0**exponents * (1 - 1e-6)).astype(int)
        pairs, counts = np.unique(np.stack([exponents, digits], axis=1), axis=0, return_counts=True)
        for (exponent, digit), count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self._counts[exponent, digit] += count

    def limit(self) -> float:
        """Smallest number of two significant digits that at most 1 % of the marked pixels exceed; 0 without any."""
        bins = sorted(self._counts, key=_value)
        total = sum(self._counts.values())
        below = 0
        for one in bins:
            below += self._counts[one]
            if total - below <= SATURATED * total:
                return _value(one)
        return 0.0


def shared_scale_limit(saliencies: Iterable[Tensor], unit: str = BITS, before: float = 0.0) -> float:
    """Value at which the shared colour scale of these maps ends.

    Args:
        saliencies: maps (H, W) of one method, >= 0. Values that are not finite are left out.
        unit: of their values.
        before: the limit so far, 0 if there is none.

    Returns:
        The 99th percentile of the marked pixels, rounded up to two significant digits, or the least limit of the unit;
        ``before`` if that is more. 0 if there is no limit so far, no least one, and no map marks a pixel.

    Example:
        >>> import torch
        >>> shared_scale_limit([torch.full((4, 4), 1.82), torch.zeros(4, 4)])
        1.9
    """
    histogram = ScaleHistogram()
    for saliency in saliencies:
        histogram.add(saliency)
    return max(before, histogram.limit(), LEAST_LIMIT.get(unit, 0.0))


def _marked(saliency: Tensor) -> NDArray[np.float64]:
    """Values of the marked pixels of a map, (N,)."""
    values = saliency.detach().double().flatten().numpy()
    values = values[np.isfinite(values)]
    if not values.size:
        return values
    # numpy: torch's quantile refuses large maps
    least = MARKED_SHARE * float(np.quantile(values, PEAK))
    return values[(values > 0) & (values >= least)]


def _value(bin_: tuple[int, int]) -> float:
    exponent, digits = bin_
    return float(f"{digits}e{exponent}")
