"""Input IBA: an information bottleneck at the resolution of the image, which begins at that of a layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_chex.attribution.attributor import Attribution
from lightning_chex.attribution.bottleneck.closed_form import refuse_closed_form
from lightning_chex.attribution.bottleneck.iba import IBA
from lightning_chex.attribution.bottleneck.optimization import at_least_float32
from lightning_chex.attribution.bottleneck.shared_mask import Damp, DampedLayer, optimize_shared
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics
from lightning_chex.attribution.fitted import FittedAttributor, Source
from lightning_chex.attribution.network.chunks import in_chunks
from lightning_chex.attribution.network.execution import affine_batch_norm, precision
from lightning_chex.attribution.targets import Targets

LEAST_START = 0.02
"""lambda at the start where the feature map marks nothing: small, yet not so small that it cannot grow."""

ROWS = 4
"""Targets optimised jointly by default: every step runs the whole network on them, with gradients."""


class InputIBA(FittedAttributor):
    """A bottleneck over the pixels: noise takes the place of the image wherever the model can do without it.

    After Zhang et al. 2021 (Fine-Grained Neural Network Explanation by Identifying Input Features with Predictive
    Information): a bottleneck at a layer first, then one at the input, guided by it. Differs in that the mask merely
    starts from the layer's map, where the paper also fits an input prior by a generative network; and in that the
    information is Eq. 2 of Khakzar et al. at the pixels, under one Gaussian per pixel and channel of the images given
    to `fit`. The channels share lambda and their bits are summed, so a grey image in three channels counts three times.

    Args:
        layer: of the bottleneck whose map the mask starts from.
        beta: weight of the information term at the input, what a mean information of one nat per pixel and channel
            costs; None as for `IBA`.
        feature_beta: the same at the layer.
        batch_size: targets optimised jointly; changes no map. None: 4.
        iba: further arguments, see `IBA`, of both bottlenecks: steps, objective, noise_samples, ...
    """

    title = "Input IBA"
    description = "Information bottleneck over the pixels themselves; finer than that over the features of a layer."
    unit = "bits per pixel"

    def __init__(
        self,
        layer: str = "features.denseblock3",
        beta: float | None = None,
        feature_beta: float | None = None,
        batch_size: int | None = None,
        **iba: Any,
    ) -> None:
        super().__init__(batch_size)
        refuse_closed_form(self, iba)
        self.feature = IBA(layer, feature_beta, **iba)
        self.beta = IBA(layer, beta, **iba).beta
        self.explains_class = self.feature.explains_class
        self.pixels = FeatureStatistics()

    @property
    @override
    def layers(self) -> Sequence[str]:
        return (self.feature.layer,)

    @property
    @override
    def needs_true_score(self) -> bool:
        return self.feature.needs_true_score

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        """Compute one map per target, bits per pixel, >= 0.

        Raises:
            RuntimeError: there are no statistics yet.
            ValueError: the images have another size than those of the statistics.
        """
        start = self.feature.compute(model, images, targets).maps
        if self.pixels.shape != images.shape[1:]:
            raise ValueError(
                f"the statistics are of images of shape {tuple(self.pixels.shape)}, those to explain have "
                f"{tuple(images.shape[1:])}: fit and explain with images of one size"
            )

        def run(first: int, last: int) -> tuple[Tensor, Tensor]:
            target = None if targets.values is None else targets.values[first:last]
            return self._solve(model, images[targets.rows[first:last]], target, start[first:last])

        with precision(images.device, self.feature.bfloat16):
            chunks = list(in_chunks(len(targets), self.batch_size or ROWS, run, self))
        if not chunks:
            return Attribution(start, start.new_zeros(0))
        maps = torch.cat([chunk_maps for chunk_maps, _ in chunks])
        convergence = torch.cat([chunk_convergence for _, chunk_convergence in chunks])
        return Attribution(maps.float(), convergence)

    def _solve(self, model: nn.Module, images: Tensor, target: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
        """Optimise the mask of the pixels of a chunk.

        Args:
            model: the network.
            images: (N, C, H, W), one for each target.
            target: (N,) or None.
            start: maps of the layer, (N, H, W), from which the mask starts.

        Returns:
            Bits per pixel, (N, H, W), and convergence, (N,).
        """
        settings = self.feature.settings
        layer = DampedLayer(images, self.pixels)
        peak = start.amax((1, 2), keepdim=True)
        share = torch.where(peak > 0, start / peak, 0)[:, None].to(layer.signal)
        full = torch.sigmoid(share.new_tensor(settings.initial_alpha))
        alpha = torch.logit((full * share).clamp(min=LEAST_START))
        again = torch.arange(len(images), device=images.device).repeat(settings.noise_samples)
        with torch.no_grad():
            reference = at_least_float32(model(images.clone()))[again]
        target = None if target is None else target[again]
        affine = affine_batch_norm(images.device)

        def run(damped: list[Damp]) -> Tensor:
            with affine:
                output = model(damped[0](images[again]))
            return settings.loss(at_least_float32(output), target, reference)

        return optimize_shared([layer], run, alpha, settings, [self.beta])

    @property
    @override
    def bfloat16(self) -> bool:
        return self.feature.bfloat16

    @override
    def sources(self) -> Mapping[str, Source]:
        return {
            "feature": self.feature.sources()[""],
            "pixels": Source(None, FeatureStatistics, FeatureStatistics.from_state_dict),
        }

    @override
    def learned(self) -> Mapping[str, FeatureStatistics]:
        return {"feature": self.feature.statistics, "pixels": self.pixels}

    @override
    def take(self, learned: Mapping[str, Any]) -> None:
        self.feature.statistics = learned["feature"]
        self.pixels = learned["pixels"]
