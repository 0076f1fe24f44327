"""Perturbation measures: change of the network's output as pixels are exchanged in the order of the maps."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_chex.attribution import frozen
from lightning_chex.evaluation.measures import PerturbedOutputs, Values, compute_measures
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.maps import Cases
from lightning_chex.metrics import (
    MaskedScores,
    blurred,
    insertion_deletion,
    mask_sizes,
    masked_scores,
    road,
)


class Perturbation:
    """The perturbation measures of one network.

    Args:
        network: raw outputs (B, K), or (B, 1) or (B,) for a score.
        is_class: whether the outputs are logits of classes.
        settings: of the evaluation.
        precision: makes the context the network runs in.
    """

    def __init__(
        self,
        network: nn.Module,
        is_class: bool,
        settings: EvaluationSettings,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.network = network
        self.is_class = is_class
        self.settings = settings
        self.precision = precision

    def raw(self, images: Tensor) -> Tensor:
        """Logits (R, K), or scores (R,)."""
        with self.precision():
            output = self.network(images.contiguous(memory_format=torch.channels_last)).float()
        return output if self.is_class else output.reshape(-1)

    def interpretable(self, images: Tensor) -> Tensor:
        """Probabilities (R, K), or scores (R,)."""
        output = self.raw(images)
        return output.sigmoid() if self.is_class else output

    def masked(self, cases: Cases) -> MaskedScores:
        """Raw outputs of all cases under all random masks, which do not depend on the maps."""
        settings = self.settings
        pixels = cases.images.shape[-2] * cases.images.shape[-1]
        with frozen(self.network):
            return masked_scores(
                self.raw,
                cases.images[cases.rows],
                mask_sizes(pixels, settings.sensitivity_sizes),
                target=cases.column,
                masks=settings.sensitivity_masks,
                chunk=settings.chunk,
                seed=settings.seed,
            )

    def measure(self, saliency: Tensor, cases: Cases, masked: MaskedScores) -> tuple[Values, Values]:
        """Measure maps (N, H, W) of N cases; values (N,) and curves (N, X)."""
        settings = self.settings
        images = cases.images[cases.rows]
        target = cases.column
        pixels = images.shape[-2] * images.shape[-1]
        with frozen(self.network):
            exchanged = insertion_deletion(
                self.interpretable,
                images,
                saliency,
                target=target,
                baseline=blurred(images, settings.blur_kernel, settings.blur_sigma),
                step=step_of(settings, pixels),
                chunk=settings.chunk,
                seed=settings.seed,
            )
            filled = road(self.interpretable, images, saliency, target=target, chunk=settings.chunk, seed=settings.seed)
        # up to the last step within it: steps of 25 pixels do not end at half of 224 x 224
        half = exchanged.up_to(float(exchanged.share[exchanged.share <= 0.5 + 1e-6].max()))
        by_size = masked.sensitivity(saliency)
        values = compute_measures("perturbation", PerturbedOutputs(exchanged, half, filled, by_size))
        curves = {
            "insertion": exchanged.insertion,
            "deletion": exchanged.deletion,
            "road_morf": filled.morf,
            "road_lerf": filled.lerf,
            "sensitivity_n": by_size,
            # the axes are recorded too, so that a record can be read by itself
            "insertion_share": exchanged.share.expand_as(exchanged.insertion),
            "deletion_share": exchanged.share.expand_as(exchanged.insertion),
            "road_morf_share": filled.share.expand_as(filled.morf),
            "road_lerf_share": filled.share.expand_as(filled.morf),
        }
        return values, curves


class PerturbedCases:
    """Cases that perturbation is measured on, with the part that all methods share.

    Args:
        perturbation: the measures.
        cases: N cases.
    """

    def __init__(self, perturbation: Perturbation, cases: Cases) -> None:
        self.perturbation = perturbation
        self.cases = cases

    @cached_property
    def masked(self) -> MaskedScores:
        """Raw outputs under random masks; computed on first use, since all cases may be on record."""
        return self.perturbation.masked(self.cases)


def step_of(settings: EvaluationSettings, pixels: int) -> int:
    """Pixels exchanged per step of insertion and deletion, for images of so many pixels."""
    if settings.step is not None:
        return settings.step
    return max(1, pixels // 32)
