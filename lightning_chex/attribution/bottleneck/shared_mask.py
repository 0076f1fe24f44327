"""One damping ratio lambda per place for all channels of several layers, and its optimisation.

alpha has one value per place of the finest grid, (N, 1, h, w), and lambda = G * sigmoid(alpha) as in `Bottleneck`. A
layer of a coarser grid takes the mean of lambda over the places that its cells cover.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_chex.attribution.blur import Blur
from lightning_chex.attribution.bottleneck.mask import ALPHA_LIMIT, Bottleneck, capacity
from lightning_chex.attribution.bottleneck.settings import BottleneckSettings
from lightning_chex.attribution.bottleneck.solution import bits_per_pixel
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics

Damp = Callable[[Tensor], Tensor]
"""Function from the features of a layer, (samples * N, C, h, w), to the damped ones."""

Run = Callable[[list[Damp]], Tensor]
"""Runs the network with a damping function for each layer, and returns the loss of each row, (samples * N,)."""


class DampedLayer:
    """The features of one layer, which a given lambda damps, and the information that passes then.

    Args:
        features: F, (N, C, h, w), without any damping.
        statistics: mu and sigma of the layer.
    """

    def __init__(self, features: Tensor, statistics: FeatureStatistics) -> None:
        # the alpha of this bottleneck is not used: the layers share one
        bottleneck = Bottleneck(features, statistics, blur_sigma=0, initial_alpha=0, lr=1)
        self.draw_noise = bottleneck.draw_noise
        self.mu = bottleneck.mu
        self.active = bottleneck.active.bool()
        self.size = (features.shape[-2], features.shape[-1])
        self.rows = len(features)
        self.channels = bottleneck.active.sum(1, keepdim=True).expand(self.rows, 1, *self.size)
        self.signal = (bottleneck.normalized.square() * bottleneck.active).sum(1, keepdim=True)
        self.neurons = features[0].numel()

    def resized(self, mask: Tensor) -> Tensor:
        """Resize a mask (N, 1, h, w) of the finest grid to this layer's grid by means over the cells."""
        if tuple(mask.shape[-2:]) == self.size:
            return mask
        return F.adaptive_avg_pool2d(mask, self.size)

    def nats(self, lambda_: Tensor, complement: Tensor) -> Tensor:
        """Compute the nats that pass each cell, (N, 1, h, w).

        It is `capacity` summed over the active channels, which share lambda.
        """
        lambda_ = self.resized(lambda_)
        complement = self.resized(complement)
        spread = capacity(torch.zeros_like(lambda_), lambda_, complement)
        return self.channels * spread + 0.5 * self.signal * lambda_.square()

    def damping(self, noise: Tensor, complement: Tensor) -> Damp:
        """Return the function from features F to lambda F + (1 - lambda) epsilon; inactive neurons become mu."""
        share = self.resized(complement).repeat(len(noise), 1, 1, 1)
        epsilon = noise.repeat_interleave(self.rows, 0)

        def damp(features: Tensor) -> Tensor:
            wide = torch.where(self.active, features.to(epsilon.dtype), self.mu)
            return torch.lerp(wide, epsilon, share).to(features.dtype)

        return damp


def optimize_shared(
    layers: Sequence[DampedLayer], run: Run, alpha: Tensor, settings: BottleneckSettings, betas: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Minimise the objective plus the mean over the layers of beta times their mean nats per neuron, by Adam.

    Args:
        layers: all in the same forward pass.
        run: gives the losses.
        alpha: at the start, (N, 1, h, w) on the finest grid.
        settings: steps, learning rate, noise, blur and seed.
        betas: one a layer.

    Returns:
        Bits per cell of the finest grid, (N, h, w), the sum over the layers; and the relative change of these over the
        last fifth of the steps, (N,).
    """
    alpha = alpha.clone().requires_grad_()
    blur = Blur(alpha.shape[-2], alpha.shape[-1], settings.blur_sigma, alpha)
    adam = torch.optim.Adam([alpha], lr=settings.lr, betas=settings.adam_betas)
    generator = torch.Generator(alpha.device).manual_seed(settings.seed)
    earlier = torch.zeros(0)

    def masks() -> tuple[Tensor, Tensor]:
        return blur(torch.sigmoid(alpha)), blur(torch.sigmoid(-alpha))

    @torch.no_grad()
    def cells() -> Tensor:
        size = alpha.shape[-2:]
        total = alpha.new_zeros(())
        for layer in layers:
            # spread to the finest grid, as bits per cell are to the pixels of an image
            total = total + bits_per_pixel(layer.nats(*masks())[:, 0], size)
        return total / math.log(2)

    for step in range(settings.steps):
        adam.param_groups[0]["lr"] = settings.learning_rate(step)
        if step == settings.convergence_step:
            earlier = cells()
        lambda_, complement = masks()
        noises = [layer.draw_noise(settings.noise_samples, generator, settings.antithetic) for layer in layers]
        damped = [layer.damping(noise, complement) for layer, noise in zip(layers, noises, strict=True)]
        loss = run(damped).sum() / settings.noise_samples
        for layer, beta in zip(layers, betas, strict=True):
            loss = loss + beta / (len(layers) * layer.neurons) * layer.nats(lambda_, complement).sum()
        (alpha.grad,) = torch.autograd.grad(loss, alpha)
        adam.step()
        with torch.no_grad():
            alpha.clamp_(-ALPHA_LIMIT, ALPHA_LIMIT)
    final = cells()
    change = (final - earlier).abs().sum((1, 2))
    return final, (change / final.sum((1, 2)).clamp(min=torch.finfo(final.dtype).tiny)).float()
