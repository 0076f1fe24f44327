"""How alike two maps of the same image are."""

import torch
from torch import Tensor

from lightning_chex.metrics.correlation import is_constant, pearson


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
            raise ValueError(f"{name} holds NaN or infinity: such a map orders nothing, leave it out")
    first, second = first.flatten(1), second.flatten(1)
    undefined = is_constant(first) | is_constant(second)
    return pearson(_mean_ranks(first), _mean_ranks(second)).masked_fill(undefined, torch.nan)


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 0 on of each row's values (B, M), float64; equal ones share their mean."""
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values.contiguous())
    up_to = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + up_to - 1).double() / 2
