"""The rules by which maps of several layers are binarised before they are combined."""

from typing import Literal

from torch import Tensor

from lightning_chex.thresholds import otsu_mask, root_mean_square_mask, top_fraction_mask

ThresholdRule = Literal["rms", "top_fraction", "otsu"]


def binarize(maps: Tensor, rule: ThresholdRule, threshold: float) -> Tensor:
    """Mark the strong pixels of each map.

    Args:
        maps: >= 0, (N, H, W).
        rule: ``rms``: values of at least ``threshold`` times the map's root mean square; ``top_fraction``: the
            strongest share ``threshold`` of the pixels; ``otsu``: the upper of the two groups of values that differ
            most, ``threshold`` not being used. See ``lightning_chex.thresholds``.
        threshold: > 0; at most 1 for ``top_fraction``.

    Returns:
        bool (N, H, W); a map of zeros marks nothing.

    Raises:
        ValueError: the rule is unknown or the threshold outside its range.
    """
    if rule not in ("rms", "top_fraction", "otsu"):
        raise ValueError(f"rule={rule!r} is unknown; choose rms, top_fraction or otsu")
    if not threshold > 0 or (rule == "top_fraction" and threshold > 1):
        raise ValueError(f"threshold={threshold!r} does not suit rule={rule!r}: > 0, and at most 1 for top_fraction")
    if rule == "rms":
        return root_mean_square_mask(maps, threshold)
    return top_fraction_mask(maps, threshold) if rule == "top_fraction" else otsu_mask(maps)
