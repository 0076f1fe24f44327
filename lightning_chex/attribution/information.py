"""How much information passes a mask (Eq. 2), its derivative, and maps in bits per pixel."""

import math

import torch
from torch import Tensor


def capacity(normalized: Tensor, lambda_: Tensor, complement: Tensor) -> Tensor:
    """Information that passes each neuron, KL(P(Z|F) || Q(Z)) of Eq. 2: (m^2 + v - log v - 1) / 2.

    With Q(Z) = N(mu, sigma^2), m = lambda r and v = (1 - lambda)^2.

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


def bits_per_cell(capacity_nats: Tensor) -> Tensor:
    """Sum nats per neuron, (B, C, h, w), to bits per feature cell, (B, h, w)."""
    return capacity_nats.sum(1) / math.log(2)


def bits_per_pixel(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Spread bits per feature cell over the pixels of the image.

    Args:
        cells: bits per feature cell, (B, h, w).
        size: (H, W) of the image.

    Returns:
        (B, H, W) bits per pixel: a cell's bits over the pixels it covers, bilinear in between.
    """
    per_pixel = cells[:, None] * (cells.shape[-2] * cells.shape[-1] / (size[0] * size[1]))
    return torch.nn.functional.interpolate(per_pixel, size=size, mode="bilinear", align_corners=False)[:, 0]


def image_size(images: Tensor) -> tuple[int, int]:
    """(H, W) of images (B, C, H, W)."""
    return images.shape[-2], images.shape[-1]
