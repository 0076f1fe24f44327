"""The information bottleneck of a batch of images: a mask that replaces features by noise, and its information.

With F the features of an image, mu and sigma their mean and deviation over many images and epsilon ~ N(mu, sigma^2):

    lambda = G * sigmoid(alpha)                 one value per neuron, G a Gaussian blur over space
    Z      = lambda F + (1 - lambda) epsilon

G is linear and its weights sum to one, so 1 - lambda = G * sigmoid(-alpha) exactly. That is how it is computed: the
complement never rounds to zero, and the logarithm of the information stays finite.
"""

import torch
from torch import Tensor

from lightning_chex.attribution.blur import Blur
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics
from lightning_chex.attribution.network.execution import layout_of

SIGMA_FLOOR = 0.01
"""Smallest deviation used in the information term (the authors' setting)."""

ALPHA_LIMIT = 16.0
"""|alpha| is kept below this: beyond, lambda or 1 - lambda is less than float32 resolves beside 1, so that nothing in Z
changes any more, but gradients become denormal numbers, with which a CPU computes some thirty times slower."""


class Bottleneck:
    """alpha of a batch of images, optimised with Adam, each image on its own.

    All of it is kept in float32 (float64 if the features are), whatever precision the network runs in. The gradient by
    alpha is written out by hand: only the network above the layer needs autograd.

    Args:
        features: F, (N, C, h, w).
        statistics: mu and sigma of the layer. A neuron that is not active in them carries no information: it is held
            at mu, with neither signal nor noise, and its capacity is zero.
        blur_sigma: width of G in cells.
        initial_alpha: alpha at the start.
        lr: Adam's learning rate.
        adam_betas: decay of Adam's running means of the gradient and of its square.
    """

    def __init__(
        self,
        features: Tensor,
        statistics: FeatureStatistics,
        blur_sigma: float,
        initial_alpha: float,
        lr: float,
        adam_betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        dtype = torch.promote_types(features.dtype, torch.float32)
        features = features.to(dtype)
        # all arrays share the features' layout: one pass over two layouts costs several over one
        self._layout = layout_of(features)
        self.mu = self._laid_out(statistics.mean.to(features))
        self.active = self._laid_out(statistics.active.to(features))
        self.sigma = self._laid_out(statistics.std.to(features)) * self.active
        self.features = torch.where(self.active.bool(), features, self.mu).contiguous(memory_format=self._layout)
        self.normalized = (self.features - self.mu) / self.sigma.clamp(min=SIGMA_FLOOR)
        self.alpha = torch.full_like(self.features, initial_alpha)
        self.blur = Blur(features.shape[-2], features.shape[-1], blur_sigma, self.features)
        # elementwise and state per element: no image influences another
        fused = self.alpha.device.type in ("cpu", "cuda")
        # a view in memory order: the fused kernel would copy other layouts at every step
        self._parameter = self._in_memory_order(self.alpha)
        self._adam = torch.optim.Adam([self._parameter], lr=lr, betas=adam_betas, fused=fused)

    def set_learning_rate(self, lr: float) -> None:
        """Change Adam's learning rate for the steps that follow."""
        self._adam.param_groups[0]["lr"] = lr

    def draw_noise(self, samples: int, generator: torch.Generator, antithetic: bool = True) -> Tensor:
        """epsilon ~ N(mu, sigma^2), (samples, C, h, w); shared by all images: no map depends on its batch.

        Antithetic samples come in pairs, a draw and its mirror image around mu; of an odd number the last is alone.
        """
        pairs, rest = divmod(samples, 2) if antithetic else (0, samples)
        shape = (pairs + rest, *self.features.shape[1:])
        draws = torch.randn(shape, generator=generator, device=self.mu.device, dtype=self.mu.dtype)
        draws = draws.contiguous(memory_format=self._layout)
        return self.mu + self.sigma * torch.cat([draws, -draws[:pairs]])

    def mask(self) -> tuple[Tensor, Tensor]:
        """lambda and 1 - lambda, (N, C, h, w) each; the complement is the exact one."""
        complement = self.blur(torch.sigmoid(-self.alpha))
        return 1 - complement, complement

    def mix(self, noise: Tensor, share: Tensor) -> Tensor:
        """Features of which ``share`` is noise: (1 - share) F + share epsilon, (samples * N, C, h, w)."""
        return torch.cat([torch.lerp(self.features, epsilon, share) for epsilon in noise])

    def step(self, information_weight: float, lambda_: Tensor, complement: Tensor, loss_gradient: Tensor) -> None:
        """Move alpha one step down the gradient of weight * sum of capacities + loss.

        Args:
            information_weight: beta over the number of neurons of an image.
            lambda_: the mask the gradients belong to.
            complement: 1 - lambda.
            loss_gradient: gradient of the loss by lambda, (N, C, h, w).
        """
        information = capacity_gradient(self.normalized, lambda_, complement)
        by_lambda = information.mul_(self.active * information_weight).add_(loss_gradient)
        # not sigmoid * (1 - sigmoid): the second factor would round to zero beyond alpha = 17 and stop the optimiser
        slope = torch.sigmoid(self.alpha).mul_(torch.sigmoid(-self.alpha))
        self.alpha_gradient = self.blur.adjoint(by_lambda).mul_(slope)
        self._parameter.grad = self._in_memory_order(self.alpha_gradient)
        self._adam.step()
        self.alpha.clamp_(-ALPHA_LIMIT, ALPHA_LIMIT)

    def signal_gradient(self, noise: Tensor, gradient: Tensor) -> Tensor:
        """Carry a gradient by Z, (samples * N, C, h, w), to lambda, for Z = lambda F + (1 - lambda) epsilon."""
        total = torch.zeros_like(self.features)
        for epsilon, by_mixed in zip(noise, gradient.chunk(len(noise)), strict=True):
            total.addcmul_(self.features - epsilon, by_mixed)
        return total

    def _in_memory_order(self, values: Tensor) -> Tensor:
        return values.permute(0, 2, 3, 1) if self._layout == torch.channels_last else values

    def _laid_out(self, statistic: Tensor) -> Tensor:
        return statistic[None].contiguous(memory_format=self._layout)

    def capacity(self) -> Tensor:
        """Nats that pass each neuron at the present alpha, (N, C, h, w)."""
        complement = self.blur(torch.sigmoid(-self.alpha))
        return capacity(self.normalized, self.blur(torch.sigmoid(self.alpha)), complement) * self.active


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
