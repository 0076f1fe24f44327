"""Fill missing pixels from what is around them, so that their absence is hard to see: a linear system per image.

Every missing pixel is the weighted mean of its neighbours, which may be missing too. Solved one by one, such systems
cost more than the network that the image is made for. Here many are solved at once by conjugate gradients, whose steps
a multigrid cycle prepares: alone they carry a value one pixel a step, and regions are a hundred pixels wide.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

_DAMPING = 0.8  # of the Jacobi sweeps
# some three checks are enough, whatever is missing
_STEPS_A_CHECK = 3
_CHECKS = 40
_BLOCK = {"cpu": 2**20}  # values at once: small enough for the processor's cache ...
_LARGE_BLOCK = 2**24  # ... or large enough to fill a GPU


def linear_imputation(images: Tensor, missing: Tensor, tolerance: float = 1e-3) -> Tensor:
    """Make every missing pixel the weighted mean of its eight neighbours, all of them at once.

    Direct neighbours weigh 1/6, diagonal ones 1/12; at the border of the image, where some do not exist, the weights
    are scaled to sum to 1 again. Channels are filled one by one, and no image depends on another.

    Args:
        images: floating, (N, C, H, W); what missing pixels hold does not matter, but finite.
        missing: bool (N, H, W), at least one pixel of each image is not.
        tolerance: largest error of a filled pixel, about, as a share of half the range of the channel's known pixels.
            1e-3 is an eighth of a grey level where black to white are 256.

    Returns:
        (N, C, H, W), known pixels untouched.

    Raises:
        ValueError: shapes that do not match, an image with NaN or infinity, or with no known pixel.
        RuntimeError: the tolerance was not reached; it is finer than the images' precision.

    Source:
        Rong et al., A consistent and efficient evaluation strategy for attribution methods, ICML 2022 (Section 4.2).

    Example:
        >>> linear_imputation(torch.tensor([[[[1.0, 7.0, 3.0]]]]), torch.tensor([[[False, True, False]]])).round()
        tensor([[[[1., 2., 3.]]]])
    """
    if images.ndim != 4 or missing.dtype != torch.bool or missing.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"missing is {missing.dtype} {tuple(missing.shape)} for images {tuple(images.shape)}: "
            "give bool (N, H, W) for (N, C, H, W)"
        )
    if not images.isfinite().all():
        raise ValueError("images hold NaN or infinity")
    if missing.flatten(1).all(1).any():
        raise ValueError("missing marks every pixel of an image: there is nothing to fill it from")
    if not images.numel():
        return images.clone()
    block = max(1, _BLOCK.get(images.device.type, _LARGE_BLOCK) // images[0].numel())
    parts = zip(images.split(block), missing[:, None].split(block), strict=True)
    return torch.cat([_filled(some, gone, tolerance) for some, gone in parts])


def _filled(images: Tensor, missing: Tensor, tolerance: float) -> Tensor:
    """Fill images (B, C, H, W) where missing, bool (B, 1, H, W)."""
    precise = images if images.dtype == torch.float64 else images.float()
    # known values scaled to [-1, 1]: the system is linear and keeps constants
    low = precise.masked_fill(missing, torch.inf).amin((2, 3), keepdim=True)
    high = precise.masked_fill(missing, -torch.inf).amax((2, 3), keepdim=True)
    middle = (low + high) / 2
    half = (high - low) / 2
    known = ((precise - middle) / half.where(half > 0, 1.0)).masked_fill(missing, 0.0)
    # the channels of a grey image are now the same: one of them is enough
    grey = bool(((known - known[:, :1]).abs() <= tolerance / 100).all())
    solution = _solve(known[:, :1] if grey else known, _grids(missing, known.dtype), tolerance)
    return torch.where(missing, (solution * half + middle).to(images.dtype), images)


@dataclass(frozen=True)
class _Grid:
    """Tensors of one level of the hierarchy, (B, 1, h, w) or (h, w).

    Attributes:
        missing: 1 where a value is sought, else 0; on a coarse level, where all pixels below are missing.
        total: sum of the binomial weights that lie in the image, 16 away from its border.
        spread: weight of a missing pixel in the interpolation from the next coarser level and back.
        sweep: damped inverse of the system's diagonal.
    """

    missing: Tensor
    total: Tensor
    spread: Tensor
    sweep: Tensor

    def lhs(self, values: Tensor) -> Tensor:
        """Left-hand side of the system, times 12; ``values`` are 0 where nothing is missing."""
        # the neighbours' weights are those of the binomial filter but for the centre, and so are their sums
        return (self.total * values).sub_(_binomial(values)).mul_(self.missing)


def _grids(missing: Tensor, dtype: torch.dtype) -> list[_Grid]:
    """Make the levels, each of half the size, the last of two by two pixels."""
    grids = []
    gone = missing.to(dtype)
    while True:
        total = _binomial(torch.ones(gone.shape[2:], dtype=dtype, device=gone.device))
        grids.append(_Grid(gone, total, gone / total, _DAMPING * gone / (total - 4).clamp(min=1)))
        if max(gone.shape[2:]) <= 2:
            return grids
        gone = (_sum_pool(1 - gone) == 0).to(dtype)


def _binomial(values: Tensor) -> Tensor:
    """Filter (..., h, w) with (1, 2, 1) in both directions; nothing is beyond the border."""
    padded = pad(values, (1, 1, 1, 1))
    rows = (padded[..., :-2] + padded[..., 2:]).add_(padded[..., 1:-1], alpha=2)
    return (rows[..., :-2, :] + rows[..., 2:, :]).add_(rows[..., 1:-1, :], alpha=2)


def _sum_pool(values: Tensor) -> Tensor:
    """Sum over squares of 2 x 2; an odd last row or column by itself."""
    height, width = values.shape[-2:]
    if height % 2 or width % 2:
        values = pad(values, (0, width % 2, 0, height % 2))
    rows = values[..., ::2] + values[..., 1::2]
    return rows[..., ::2, :] + rows[..., 1::2, :]


def _cycle(residual: Tensor, grids: list[_Grid]) -> Tensor:
    """Estimate the error whose left-hand side is the residual: a V-cycle, symmetric as conjugate gradients ask."""
    grid = grids[0]
    error = grid.sweep * residual
    if len(grids) > 1:
        left = grid.spread * (residual - grid.lhs(error))
        coarse = _cycle(grids[1].missing * _sum_pool(_binomial(left)), grids[1:])
        height, width = residual.shape[-2:]
        fine = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., :height, :width]
        error = error.addcmul(grid.spread, _binomial(fine))
    return error.addcmul(grid.sweep, residual - grid.lhs(error))


def _solve(known: Tensor, grids: list[_Grid], tolerance: float) -> Tensor:
    """Find the missing values, given the known ones (B, C, H, W), which are 0 where missing."""
    values = torch.zeros_like(known)
    residual = _binomial(known) * grids[0].missing
    error = _cycle(residual, grids)
    direction = error
    power = _dot(residual, error)
    smallest = torch.finfo(known.dtype).tiny
    for _ in range(_CHECKS):
        # the cycle's estimate of the error decides; one that is done stands still, whatever the others need
        active = ~(error.abs().amax((2, 3), keepdim=True) <= tolerance)
        if not active.any():
            return values
        for _ in range(_STEPS_A_CHECK):
            change = grids[0].lhs(direction)
            step = active * power / _dot(direction, change).clamp(min=smallest)
            values = values.addcmul(step, direction)
            residual = residual.addcmul(step, change, value=-1)
            error = _cycle(residual, grids)
            previous = power
            power = _dot(residual, error)
            direction = error.addcmul(power / previous.clamp(min=smallest), direction)
    raise RuntimeError(
        f"missing pixels could not be filled to tolerance={tolerance!r} in {_CHECKS * _STEPS_A_CHECK} steps: "
        f"allow a larger one for {known.dtype}"
    )


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum((2, 3), keepdim=True)
