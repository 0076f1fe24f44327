"""The information bottleneck itself: masks, the noise they let in, and the information that is left.

With F the features of an image, mu and sigma their mean and deviation over many images and epsilon ~ N(mu, sigma^2):

    lambda = G * sigmoid(alpha)                 one value per neuron, G a Gaussian blur over space
    Z      = lambda F + (1 - lambda) epsilon
    KL     = (m^2 + v - log v - 1) / 2,         m = lambda (F - mu) / sigma,  v = (1 - lambda)^2

G is linear and its weights sum to one, so 1 - lambda = G * sigmoid(-alpha) exactly. That is how it is computed: the
complement never rounds to zero, and log v stays finite.
"""

import math

import torch
from torch import Tensor

SIGMA_FLOOR = 0.01
"""Smallest deviation used in the information term (the authors' setting)."""

ALPHA_LIMIT = 80.0
"""|alpha| is kept below this: exp(-80) is still a normal float32 number, so 1 - lambda never becomes zero."""


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
    """The mask's separable Gaussian blur over (..., h, w) and its adjoint, as two small matrix products each."""

    def __init__(self, height: int, width: int, sigma: float, like: Tensor) -> None:
        self.rows = blur_matrix(height, sigma).to(like)
        self.columns = blur_matrix(width, sigma).to(like)

    def __call__(self, mask: Tensor) -> Tensor:
        """Blur."""
        with torch.autocast(mask.device.type, enabled=False):  # matrix products would lose the mask's precision
            return self.rows @ mask @ self.columns.T

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Carry a gradient with respect to the blurred mask back to the mask."""
        with torch.autocast(gradient.device.type, enabled=False):
            return self.rows.T @ gradient @ self.columns


def capacity(normalized: Tensor, lambda_: Tensor, complement: Tensor) -> Tensor:
    """Information that passes each neuron, KL(P(Z|F) || Q(Z)) of Eq. 2.

    Args:
        normalized: r = (F - mu) / sigma.
        lambda_: the mask, in [0, 1].
        complement: 1 - lambda, in (0, 1]; separate, because it cannot be had from a lambda that rounds to 1.

    Returns:
        Nats per neuron, >= 0 and finite, of the same shape.
    """
    # v - 1 - log v loses all digits where lambda is small; with d = 1 - v = lambda (1 + complement) it does not
    d = lambda_ * (1 + complement)
    near_noise = -d - torch.log1p(-d.clamp(max=0.9))
    near_signal = -d - 2 * complement.log()
    spread = torch.where(d < 0.5, near_noise, near_signal)
    return 0.5 * ((lambda_ * normalized).square() + spread.clamp(min=0))


def capacity_gradient(normalized: Tensor, lambda_: Tensor, complement: Tensor) -> Tensor:
    """Derivative of `capacity` by lambda: lambda r^2 + 1 / (1 - lambda) - (1 - lambda), same shapes."""
    return lambda_ * (normalized.square() + 1 / complement + 1)


def bits_per_pixel(capacity_nats: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn capacities into a saliency map.

    Args:
        capacity_nats: nats per neuron, (B, C, h, w).
        size: (H, W) of the image.

    Returns:
        (B, H, W) bits per pixel: summed over channels, spread evenly over the pixels of a cell, bilinear in between.
    """
    cells = capacity_nats.sum(1, keepdim=True) / math.log(2)
    cells = cells * (cells.shape[-2] * cells.shape[-1] / (size[0] * size[1]))
    return torch.nn.functional.interpolate(cells, size=size, mode="bilinear", align_corners=False)[:, 0]
