"""Correlation of rows (Pearson) and of the ranks of maps (Spearman); NaN where one side is constant."""

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


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of each pair of maps; equal pixels share the mean of their ranks.

    Args:
        first: finite, (B, H, W), any scale.
        second: finite, (B, H, W), any scale.

    Returns:
        float64 (B,) in [-1, 1]; NaN where either map is constant up to rounding, as in ``pearson``.

    Raises:
        ValueError: shapes that do not match, a map that is not finite.

    Example:
        >>> spearman(torch.tensor([[[1.0, 2, 3]]]), torch.tensor([[[10.0, 20, 1000]]])).round(decimals=6)
        tensor([1.], dtype=torch.float64)
    """
    if first.ndim != 3 or first.shape != second.shape:
        raise ValueError(f"maps {tuple(first.shape)} and {tuple(second.shape)} do not match: give (B, H, W) twice")
    for name, maps in (("first", first), ("second", second)):
        if not maps.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity: its pixels cannot be ranked; leave the map out")
    first = first.flatten(1)
    second = second.flatten(1)
    undefined = is_constant(first) | is_constant(second)
    return pearson(_mean_ranks(first), _mean_ranks(second)).masked_fill(undefined, torch.nan)


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 0 on of each row's values (B, M), float64; equal ones share their mean."""
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values.contiguous())
    up_to = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + up_to - 1).double() / 2
