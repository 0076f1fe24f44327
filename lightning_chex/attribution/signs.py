"""What becomes of the sign of a relevance: a map for ranking pixels, or one that adds up."""

from typing import Literal

from torch import Tensor

Sign = Literal["absolute", "positive", "signed"]


def check_sign(sign: Sign) -> Sign:
    """Return ``sign``, or raise a ValueError if it is unknown."""
    if sign not in ("absolute", "positive", "signed"):
        raise ValueError(f"sign={sign!r} is unknown; choose absolute, positive or signed")
    return sign


def signed_map(relevance: Tensor, sign: Sign) -> Tensor:
    """Sum relevance over the channels, then treat its sign.

    Args:
        relevance: (N, C, H, W).
        sign: ``absolute`` and ``positive`` give maps >= 0; ``signed`` leaves the sum as it is.

    Returns:
        (N, H, W).
    """
    summed = relevance.sum(1)
    if sign == "signed":
        return summed
    return summed.abs() if sign == "absolute" else summed.clamp(min=0)
