"""Pearson's correlation, row by row, with its degenerate case stated."""

import torch
from torch import Tensor

_RELATIVE_SPREAD = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def is_constant(values: Tensor) -> Tensor:
    """Say which rows vary by no more than rounding: a spread of some units in the last place of their largest value.

    Args:
        values: floating, (B, M).

    Returns:
        bool (B,).
    """
    spread = values.amax(1) - values.amin(1)
    return spread <= _RELATIVE_SPREAD[values.dtype] * values.abs().amax(1)


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation coefficient of each row.

    Args:
        first: floating, (B, M), M >= 1.
        second: floating, (B, M).

    Returns:
        float64 (B,) in [-1, 1]; NaN where either row is constant up to rounding.

    Example:
        >>> pearson(torch.tensor([[1.0, 2, 3], [1, 1, 1]]), torch.tensor([[2.0, 4, 6], [1, 2, 3]])).round(decimals=6)
        tensor([1., nan], dtype=torch.float64)
    """
    undefined = is_constant(first) | is_constant(second)
    # float64: the sums of a mask over thousands of pixels differ in their last digits
    first, second = (x.double() - x.double().mean(1, keepdim=True) for x in (first, second))
    scale = first.norm(dim=1) * second.norm(dim=1)
    value = ((first * second).sum(1) / scale).clamp(-1, 1)
    return value.masked_fill(undefined, torch.nan)
