"""Information bottleneck attribution: how many bits of each image region the model needs for its output."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attributor, frozen
from lightning_chex.attribution.bottleneck import (
    ALPHA_LIMIT,
    SIGMA_FLOOR,
    Blur,
    bits_per_pixel,
    capacity,
    capacity_gradient,
)
from lightning_chex.attribution.objectives import SCORE_OBJECTIVES, Objective, ObjectiveName, get_objective
from lightning_chex.attribution.partition import (
    Partition,
    check_feature_map,
    get_layer,
    hooked,
    partition,
    repeat_carried,
)
from lightning_chex.attribution.statistics import FeatureStatistics


class IBA(Attributor):
    """Information Bottleneck Attribution (Khakzar et al. 2021, Eq. 1-3; Schulz et al. 2020).

    For each image a mask lambda over the features of one layer is optimised: it lets noise in wherever the model can do
    without the features, and what information still passes, in bits, is the map. Many images are optimised jointly and
    independently; the network below the layer runs once, frozen weights receive no gradients.

    Args:
        layer: dotted name of the module at whose output the bottleneck sits; its output must be (B, C, h, w).
        beta: weight of the information term; larger keeps less. 10 suits DenseNet-121's denseblock3.
        steps: optimisation steps.
        lr: Adam's learning rate on alpha.
        noise_samples: noise draws per step. Even numbers are drawn as antithetic pairs (epsilon and its mirror image
            around mu), which is why two do the work of many.
        objective: what the masked model has to keep: ``binary_cross_entropy`` of the explained class alone,
            ``one_hot_binary_cross_entropy`` over all outputs (the authors' code), ``softmax_cross_entropy``, or, for
            regression, ``deviation`` from the model's own prediction, ``squared_error`` to a given score,
            ``maximize_score``; or a function ``(output, target, reference) -> (B,)``.
        blur_sigma: width, in feature cells, of the Gaussian that smooths the mask; 0 for none.
        initial_alpha: alpha at the start; 5 lets 99.3 % of the signal through.
        batch_size: images optimised jointly; bounds the memory, changes no map.
        seed: seed of the noise; the global random state is neither used nor changed.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> iba = IBA(layer="1", steps=2).fit(model, [torch.randn(20, 1, 16, 16)])
        >>> iba.attribute(model, torch.randn(3, 1, 16, 16), torch.tensor([0, 1, 1])).shape
        torch.Size([3, 16, 16])
    """

    def __init__(
        self,
        layer: str = "features.denseblock3",
        beta: float = 10.0,
        steps: int = 10,
        lr: float = 1.0,
        noise_samples: int = 2,
        objective: ObjectiveName | Objective = "binary_cross_entropy",
        blur_sigma: float = 1.0,
        initial_alpha: float = 5.0,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("beta", beta, 0),
            ("steps", steps, 1),
            ("noise_samples", noise_samples, 1),
            ("blur_sigma", blur_sigma, 0),
            ("batch_size", batch_size, 1),
        ):
            if not value >= least:
                raise ValueError(f"{name}={value!r} must be at least {least}")
        if not lr > 0:
            raise ValueError(f"lr={lr!r} must be greater than 0")
        self.layer = layer
        self.beta = beta
        self.steps = steps
        self.lr = lr
        self.noise_samples = noise_samples
        self.objective = get_objective(objective)
        self.blur_sigma = blur_sigma
        self.initial_alpha = initial_alpha
        self.batch_size = batch_size
        self.seed = seed
        self.statistics = FeatureStatistics()

    @property
    def explains_class(self) -> bool:
        """False for the regression objectives; a function of one's own is taken to explain a class."""
        return self.objective not in SCORE_OBJECTIVES

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a LayerError if the model has no such layer or, with images, if its output is no feature map."""
        get_layer(model, self.layer)
        if images is not None:
            with frozen(model), torch.no_grad():
                partition(model, self.layer).below(images)

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Collect feature statistics from the forward passes made within the context; they replace the former ones."""
        statistics = FeatureStatistics()

        def collect(module: nn.Module, inputs: Any, output: Any) -> None:
            statistics.update(check_feature_map(output, self.layer))

        with hooked(get_layer(model, self.layer), collect):
            yield
        self.statistics = statistics

    def fit(self, model: nn.Module, batches: Iterable[Tensor]) -> Self:
        """Estimate the features' mean and deviation, replacing former estimates.

        Args:
            model: the network to explain; left as it was found.
            batches: image batches (B, C, H, W), moved to the model's device; some hundred images, not those explained.

        Raises:
            LayerError: the layer does not exist or gives no feature map.
            ValueError: fewer than two images.
        """
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        statistics = FeatureStatistics()
        with frozen(model), torch.no_grad():
            parts = partition(model, self.layer)
            for images in batches:
                statistics.update(parts.below(images.to(device))[0])
        if statistics.count < 2:
            raise ValueError(f"the statistics need at least 2 images, the batches held {statistics.count}")
        self.statistics = statistics
        return self

    def synchronize(self) -> None:
        """Merge the statistics of all distributed processes."""
        self.statistics.synchronize()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the feature statistics as plain tensors."""
        return self.statistics.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over feature statistics of the same layer."""
        self.statistics = FeatureStatistics.from_state_dict(state)

    @property
    def num_observed(self) -> int:
        """How many images the feature statistics rest on."""
        return self.statistics.count

    def attribute(self, model: nn.Module, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Compute one map per image.

        Args:
            model: the network to explain; left bit for bit as it was found, also after an exception.
            images: (B, C, H, W) on the model's device.
            target: (B,) class indices; (B,) floats for ``squared_error``; the other regression objectives need none.

        Returns:
            float32 (B, H, W) bits per pixel, >= 0.

        Raises:
            RuntimeError: there are no statistics yet.
            ValueError: shapes of images, target and statistics do not fit.
        """
        self._check_input(images, target)
        with frozen(model):
            images = images.clone() if images.is_inference() else images.detach()
            target = target.clone() if target is not None and target.is_inference() else target
            parts = partition(model, self.layer)
            maps = [
                self._attribute_chunk(parts, images[i : i + self.batch_size], target_chunk)
                for i, target_chunk in self._chunks(len(images), target)
            ]
        return torch.cat(maps) if maps else images.new_zeros(images.shape[0], *images.shape[2:]).float()

    def _chunks(self, count: int, target: Tensor | None) -> Iterator[tuple[int, Tensor | None]]:
        for i in range(0, count, self.batch_size):
            yield i, None if target is None else target[i : i + self.batch_size]

    def _check_input(self, images: Tensor, target: Tensor | None) -> None:
        if self.statistics.count < 2:
            raise RuntimeError(f"{type(self).__name__} has no feature statistics yet: call fit(model, batches) first")
        if images.ndim != 4:
            raise ValueError(f"images have shape {tuple(images.shape)}, not (B, C, H, W)")
        if target is not None and target.shape != (len(images),):
            raise ValueError(f"target has shape {tuple(target.shape)}; {len(images)} images need ({len(images)},)")

    def _attribute_chunk(self, parts: Partition, images: Tensor, target: Tensor | None) -> Tensor:
        with torch.no_grad():
            features, carried = parts.below(images)
            probe = features.clone()
            reference = parts.above(probe, carried)
        # an activation that works in place may not do so on the leaf of the gradient
        shield = Tensor.clone if probe._version > 0 else _unchanged
        if features.shape[1:] != self.statistics.shape:
            raise ValueError(
                f"the features of layer {self.layer!r} have shape {tuple(features.shape[1:])}, the statistics "
                f"{tuple(self.statistics.shape)}: fit and explain with images of one size"
            )
        _check_reference(reference, target)
        mask = _Mask(features, self.statistics, self.blur_sigma, self.initial_alpha)
        adam = torch.optim.Adam([mask.alpha], lr=self.lr)
        carried = repeat_carried(carried, len(images), self.noise_samples)
        generator = torch.Generator(images.device).manual_seed(self.seed)
        for _ in range(self.steps):
            noise = mask.draw_noise(self.noise_samples, generator)
            lambda_, complement = mask.values()
            mixed = mask.mix(noise, complement).to(features.dtype)
            loss_gradient = self._loss_gradient(parts, mixed, shield, carried, target, reference).to(mask.alpha.dtype)
            information_gradient = mask.information_gradient(lambda_, complement, self.beta)
            mask.backward(information_gradient + mask.mix_gradient(noise, loss_gradient))
            adam.step()
            mask.alpha.data.clamp_(-ALPHA_LIMIT, ALPHA_LIMIT)
        return bits_per_pixel(mask.capacity(), (images.shape[-2], images.shape[-1])).float()

    def _loss_gradient(
        self,
        parts: Partition,
        mixed: Tensor,
        shield: Callable[[Tensor], Tensor],
        carried: tuple[Any, ...],
        target: Tensor | None,
        reference: Tensor,
    ) -> Tensor:
        """Gradient of the summed objective by the mixed features (k, B, C, h, w), the mean taken over the k draws."""
        samples, batch = mixed.shape[:2]
        mixed = mixed.flatten(0, 1).requires_grad_(True)
        output = _at_least_float32(parts.above(shield(mixed), carried))
        known = _at_least_float32(reference).repeat(samples, *[1] * (reference.ndim - 1))
        repeated = None if target is None else target.repeat(samples)
        loss = self.objective(output, repeated, known).sum() / samples
        (gradient,) = torch.autograd.grad(loss, mixed)
        return gradient.unflatten(0, (samples, batch))


def _unchanged(features: Tensor) -> Tensor:
    return features


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check_reference(reference: Tensor, target: Tensor | None) -> None:
    """Refuse what would otherwise give a map of NaN, or an assertion deep inside a GPU kernel."""
    if not torch.isfinite(reference).all():
        raise ValueError("the model's output is NaN or infinite: check the images and the model's weights")
    if target is not None and not target.is_floating_point() and reference.ndim == 2 and len(target):
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= reference.shape[1]:
            raise ValueError(
                f"target holds class {high if low >= 0 else low}; the model has {reference.shape[1]} outputs"
            )


class _Mask:
    """alpha of a batch of images, with everything around it that does not change from step to step.

    All of it in float32 (float64 if the features are), whatever precision the network runs in.
    """

    def __init__(
        self, features: Tensor, statistics: FeatureStatistics, blur_sigma: float, initial_alpha: float
    ) -> None:
        dtype = torch.promote_types(features.dtype, torch.float32)
        self.features = features.to(dtype)
        self.mu = statistics.mean.to(self.features)
        self.sigma = statistics.std.to(self.features)
        self.active = statistics.active.to(self.features)
        # a neuron that carries no information is held at its mean, with neither noise nor signal
        self.features = torch.where(self.active.bool(), self.features, self.mu)
        self.sigma = self.sigma * self.active
        self.normalized = (self.features - self.mu) / self.sigma.clamp(min=SIGMA_FLOOR)
        self.blur = Blur(features.shape[-2], features.shape[-1], blur_sigma, self.features)
        self.alpha = torch.full_like(self.features, initial_alpha)

    def draw_noise(self, samples: int, generator: torch.Generator) -> Tensor:
        """epsilon ~ N(mu, sigma^2), (samples, 1, C, h, w); shared by all images: no map depends on its batch."""
        pairs, rest = divmod(samples, 2)
        shape = (pairs + rest, 1, *self.mu.shape)
        draws = torch.randn(shape, generator=generator, device=self.mu.device, dtype=self.mu.dtype)
        standard = torch.cat([draws, -draws[:pairs]])
        return self.mu + self.sigma * standard

    def values(self) -> tuple[Tensor, Tensor]:
        """lambda and 1 - lambda."""
        complement = self.blur(torch.sigmoid(-self.alpha))
        return 1 - complement, complement

    def mix(self, noise: Tensor, complement: Tensor) -> Tensor:
        """Z = lambda F + (1 - lambda) epsilon, (samples, B, C, h, w)."""
        return torch.lerp(self.features, noise, complement)

    def information_gradient(self, lambda_: Tensor, complement: Tensor, beta: float) -> Tensor:
        """Gradient by lambda of beta L_I, L_I the mean of the capacities over the neurons of an image."""
        weight = self.active * (beta / self.features[0].numel())
        return capacity_gradient(self.normalized, lambda_, complement) * weight

    def mix_gradient(self, noise: Tensor, gradient: Tensor) -> Tensor:
        """Gradient by lambda of a loss whose gradient by Z is given."""
        return ((self.features - noise) * gradient).sum(0)

    def backward(self, lambda_gradient: Tensor) -> None:
        """Set alpha's gradient from lambda's."""
        # not sigmoid * (1 - sigmoid): the second factor would round to zero beyond alpha = 17 and stop the optimiser
        slope = torch.sigmoid(self.alpha) * torch.sigmoid(-self.alpha)
        self.alpha.grad = self.blur.adjoint(lambda_gradient) * slope

    def capacity(self) -> Tensor:
        """Nats that pass each neuron at the present alpha, (B, C, h, w)."""
        complement = self.blur(torch.sigmoid(-self.alpha))
        return capacity(self.normalized, self.blur(torch.sigmoid(self.alpha)), complement) * self.active
