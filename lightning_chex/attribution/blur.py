"""The Gaussian blur that smooths a mask over space."""

import torch
from torch import Tensor

from lightning_chex.attribution.network.execution import layout_of


def blur_matrix(length: int, sigma: float = 1.0, radius: int = 2) -> Tensor:
    """Return the Gaussian blur along one axis, with reflection at the ends, as a matrix.

    Args:
        length: size of the axis, >= 1; axes shorter than the kernel reflect several times.
        sigma: width of the Gaussian in cells; 0 gives the identity.
        radius: the kernel has 2 radius + 1 taps, normalised to sum to one.

    Returns:
        float64 (length, length), rows summing to one; ``matrix @ x`` blurs the first axis of ``x``.
    """
    if sigma <= 0:
        return torch.eye(length, dtype=torch.float64)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-offsets.double().square() / (2 * sigma**2))
    weights = weights / weights.sum()
    # reflect without repeating the edge: ... 2 1 | 0 1 2 ... n-1 | n-2 ...
    period = max(2 * (length - 1), 1)
    source = (torch.arange(length)[:, None] + offsets) % period
    source = torch.where(source >= length, period - source, source)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add_(1, source, weights.expand(length, -1))


class Blur:
    """A separable Gaussian blur over (N, C, h, w) and its adjoint, as two small matrix products each.

    Matrix products are what every device is fastest at, and feature maps are small: at 14 x 14 cells this beats a
    depthwise convolution several times over. The result has the layout of the input.
    """

    def __init__(self, height: int, width: int, sigma: float, like: Tensor) -> None:
        self.rows = blur_matrix(height, sigma).to(like)
        self.columns = blur_matrix(width, sigma).to(like)

    def __call__(self, mask: Tensor) -> Tensor:
        """Blur."""
        return _along_both_axes(self.rows, self.columns, mask)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Carry a gradient with respect to the blurred mask back to the mask."""
        return _along_both_axes(self.rows.T, self.columns.T, gradient)


def _along_both_axes(rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    with torch.autocast(values.device.type, enabled=False):  # matrix products would lose the mask's precision
        if layout_of(values) == torch.contiguous_format:
            return rows @ values @ columns.T
        channels_last = columns @ values.permute(0, 2, 3, 1)
        return (rows @ channels_last.flatten(2)).view_as(channels_last).permute(0, 3, 1, 2)
