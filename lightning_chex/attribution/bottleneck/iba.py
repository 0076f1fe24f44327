"""Information bottleneck attribution: how many bits of each image region the model needs for its output."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_chex.attribution.attributor import Attribution, Rows, Target
from lightning_chex.attribution.bottleneck.layer_maps import layer_maps, layer_report
from lightning_chex.attribution.bottleneck.layered import LayeredAttributor
from lightning_chex.attribution.bottleneck.objectives import (
    SCORE_OBJECTIVES,
    Objective,
    deviation,
    maximize_score,
    squared_error,
)
from lightning_chex.attribution.bottleneck.optimization import NoiseShare
from lightning_chex.attribution.bottleneck.settings import BottleneckSettings
from lightning_chex.attribution.bottleneck.solution import BottleneckReport
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics, Granularity
from lightning_chex.attribution.description import MethodDescription
from lightning_chex.attribution.targets import Targets


class IBA(LayeredAttributor):
    """Information Bottleneck Attribution (Khakzar et al. 2021, Eq. 1-3; Schulz et al. 2020).

    For each image a mask lambda over the features of one layer is optimised: it lets noise in wherever the model can do
    without the features, and what information still passes, in bits, is the map. Many images are optimised jointly and
    independently; the network below the layer runs once, frozen weights receive no gradients.

    Args:
        layer: dotted name of the module at whose output the bottleneck sits; its output must be (B, C, h, w).
        beta: weight of the information term in the loss ``objective + beta * mean(capacity in nats)``; larger keeps
            less. At a layer of M neurons one bit more in the whole map has to lower the objective by beta ln 2 / M.
            None: 10 for an objective of a class, 300 for one of a score (10 and 30 for `InverseIBA`). The number of
            outputs has no effect, except in ``one_hot_binary_cross_entropy``, a mean over K outputs, in which the
            explained class weighs 1 / K: beta 10 there is about 10 K elsewhere.
        batch_size: targets optimised jointly; changes no map. None: what fits the memory. Halved when the memory does
            not suffice.
        statistics_per: one mean and deviation per ``neuron``, or per ``channel``, which needs fewer images.
        settings: see `BottleneckSettings`: steps, objective, noise_samples, ...

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> iba = IBA(layer="1", steps=2).fit(model, [torch.randn(60, 1, 16, 16)])
        >>> iba.attribute(model, torch.randn(3, 1, 16, 16), torch.tensor([0, 1, 1])).shape
        torch.Size([3, 16, 16])
    """

    title = "Information Bottleneck Attribution"
    color = "blue"
    description = (
        "Information bottleneck: noise replaces the features of a layer wherever the prediction can do "
        "without them. The map is the information that is left, in bits."
    )
    default_beta: ClassVar[Mapping[str, float]] = {"class": 10.0, "score": 300.0}
    """Where ``beta`` is None, for objectives of a class and of a score."""

    updates: ClassVar[Sequence[str]] = ("adam", "closed_form")
    """Values of ``update`` that the method offers."""

    def __init__(
        self,
        layer: str = "features.denseblock3",
        beta: float | None = None,
        batch_size: int | None = None,
        statistics_per: Granularity = "neuron",
        **settings: Any,
    ) -> None:
        super().__init__(batch_size)
        self.layer = layer
        self.statistics = FeatureStatistics(statistics_per)
        self.settings = BottleneckSettings(**settings)
        self.configure(self.settings, beta)
        if self.settings.update not in self.updates:
            raise ValueError(f"update={self.settings.update!r} is not offered by {type(self).__name__}; choose adam")

    def configure(self, settings: BottleneckSettings, beta: float | None = None) -> None:
        """Replace the settings.

        Args:
            settings: without effect of their beta.
            beta: weight of the information term; None for the default of the objective.
        """
        # a function of the user's own is assumed to explain a class
        self.explains_class = settings.loss not in SCORE_OBJECTIVES
        if beta is None:
            beta = self.default_beta["class" if self.explains_class else "score"]
        self.settings = replace(settings, beta=beta)

    score_variants: ClassVar[Mapping[Objective, tuple[str, str]]] = {
        squared_error: ("blue", "lead to the true score"),
        maximize_score: ("indigo", "lead to a high score"),
        deviation: ("olive", "lead to the score the network gives to the whole image"),
    }
    """Objective of a score -> colour, and what the information that is left must do. One chart can hold all three."""

    def about(self) -> MethodDescription:
        """Describe the method, for an objective of a score what the objective asks for."""
        general = super().about()
        if self.objective not in self.score_variants:
            return general
        color, purpose = self.score_variants[self.objective]
        description = f"IBA for a network that predicts a score; the information that is left must {purpose}."
        return MethodDescription(f"{general.title} of a score", color, description)

    @property
    def members(self) -> Sequence["IBA"]:
        """The method itself, which has one layer."""
        return (self,)

    @property
    def beta(self) -> float:
        """Weight of the information term."""
        return self.settings.beta

    @property
    def objective(self) -> Objective:
        """Loss between the output on the masked features and the target."""
        return self.settings.loss

    @property
    @override
    def bfloat16(self) -> bool:
        return self.settings.bfloat16

    @property
    @override
    def needs_true_score(self) -> bool:
        return self.objective is squared_error

    @property
    def noise_share(self) -> NoiseShare:
        """Function that returns the share of noise in the features that the objective sees: 1 - lambda (Eq. 1)."""
        return complement_is_noise

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        """Compute one map per target, bits per pixel, >= 0; features are computed once per image, not per target.

        Raises:
            RuntimeError: there are no statistics yet.
            ValueError: the images have another size than those of the statistics.
        """
        return layer_maps([self], model, images, targets)[0]

    def report(self, model: nn.Module, images: Tensor, target: Target = None, rows: Rows = None) -> BottleneckReport:
        """Explain as `attribute` does, and return mask, capacity and the course of the optimisation too.

        Args:
            model: see `attribute`.
            images: see `attribute`.
            target: see `attribute`; several per image, (B, T), are taken one after the other, N = B T.
            rows: see `attribute`.
        """

        with self._prepared(model, images, target, rows) as (network, clean, targets):
            return layer_report(self, network, clean, targets)

    def spread(
        self,
        model: nn.Module,
        images: Tensor,
        target: Target = None,
        rows: Rows = None,
        seeds: Iterable[int] = range(5),
    ) -> tuple[Tensor, Tensor]:
        """Compute mean and standard deviation of the maps over noise seeds.

        Args:
            model: see `attribute`.
            images: see `attribute`.
            target: see `attribute`.
            rows: see `attribute`.
            seeds: at least two seeds.

        Returns:
            Two tensors shaped like the result of `attribute`, bits per pixel.
        """
        maps = []
        for seed in seeds:
            reseeded = copy.copy(self)
            reseeded.settings = replace(self.settings, seed=seed)
            maps.append(reseeded.attribute(model, images, target, rows))
        if len(maps) < 2:
            raise ValueError(f"seeds holds {len(maps)} seed(s); a spread needs at least two")
        stacked = torch.stack(maps)
        return stacked.mean(0), stacked.std(0)


def complement_is_noise(lambda_: Tensor, complement: Tensor) -> Tensor:
    """Return the share of noise 1 - lambda, of IBA (Eq. 1)."""
    return complement


def mask_is_noise(lambda_: Tensor, complement: Tensor) -> Tensor:
    """Return the share of noise lambda, of Inverse IBA (Eq. 4)."""
    return lambda_


class InverseIBA(IBA):
    """Inverse IBA (Eq. 4): the regions whose removal costs the model its output, at the least information.

    What the mask selects is replaced by noise, Z_inv = lambda epsilon + (1 - lambda) F, and the objective is maximised
    there, while beta L_I limits what is selected. The arguments are those of `IBA`.

    Whether it marks more of several redundant cues than IBA depends on both betas; with the defaults, on the phantom,
    it does not: see benchmarks/results/beta.md.
    """

    title = "Inverse IBA"
    color = "orange"
    description = (
        "Information bottleneck the other way round: it finds the features without which the prediction breaks down."
    )
    default_beta = {"class": 10.0, "score": 30.0}
    score_variants = {}
    # the objective grows without bound: undamped steps do not settle (.79 with a long optimisation, Adam's .92)
    updates = ("adam",)

    @property
    def noise_share(self) -> NoiseShare:
        """Function that returns the share of noise in the features that the objective sees: lambda (Eq. 4)."""
        return mask_is_noise
