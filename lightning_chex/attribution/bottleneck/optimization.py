"""The optimisation of a bottleneck, the same loop for IBA and Inverse IBA."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_chex.attribution.bottleneck.closed_form import ClosedForm
from lightning_chex.attribution.bottleneck.mask import Bottleneck
from lightning_chex.attribution.bottleneck.settings import BottleneckSettings
from lightning_chex.attribution.bottleneck.solution import Solution
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics
from lightning_chex.attribution.network.execution import affine_batch_norm
from lightning_chex.attribution.network.layers import NotFiniteError
from lightning_chex.attribution.network.partition import Partition, select_carried

NoiseShare = Callable[[Tensor, Tensor], Tensor]
"""Share of noise in the features that the objective sees, of lambda and 1 - lambda."""


@dataclass(frozen=True)
class Problem:
    """Optimisation problem of a bottleneck, for the features of N explained targets.

    Attributes:
        parts: the model, divided at the layer.
        features: (N, C, h, w), one row per explained target.
        carried: other tensors that the part above the layer needs, with the same rows.
        target: one value per row, or None.
        reference: the model's output on the untouched features, with the same rows.
        statistics: mean and deviation of the layer's features.
        noise_share: ``1 - lambda`` for IBA (Eq. 1), ``lambda`` for Inverse IBA (Eq. 4).
    """

    parts: Partition
    features: Tensor
    carried: tuple[Any, ...]
    target: Tensor | None
    reference: Tensor
    statistics: FeatureStatistics
    noise_share: NoiseShare


class Update(Protocol):
    """Protocol of what moves alpha: `Bottleneck` by Adam, or `ClosedForm`."""

    def step(self, information_weight: float, lambda_: Tensor, complement: Tensor, loss_gradient: Tensor) -> None:
        """Move alpha; see `Bottleneck.step`."""


OnStep = Callable[[int, Tensor], None]
"""Called at each step before the update, with its number from 0 and the objective per row, (N,)."""


def optimize(
    problem: Problem, settings: BottleneckSettings, generator: torch.Generator, recorded: bool = False
) -> Solution:
    """Optimise a new bottleneck.

    Args:
        problem: model, features and target.
        settings: of the bottleneck and its optimisation.
        generator: source of the noise, on the features' device.
        recorded: also keep objective and total bits before each step.
    """
    bottleneck = Bottleneck(
        problem.features,
        problem.statistics,
        settings.blur_sigma,
        settings.initial_alpha,
        settings.lr,
        settings.adam_betas,
    )
    update = ClosedForm(bottleneck) if settings.update == "closed_form" else bottleneck
    solution = Solution(bottleneck, torch.empty(0))

    def on_step(step: int, objective: Tensor) -> None:
        bottleneck.set_learning_rate(settings.learning_rate(step))
        if step == settings.convergence_step:
            solution.earlier = solution.cells()
        if recorded:
            solution.objective.append(objective)
            solution.information.append(solution.cells().sum((1, 2)))

    move_alpha(problem, bottleneck, update, settings, generator, on_step)
    return solution


def move_alpha(
    problem: Problem,
    bottleneck: Bottleneck,
    update: Update,
    settings: BottleneckSettings,
    generator: torch.Generator,
    on_step: OnStep,
) -> None:
    """Minimise beta L_I +- objective over the bottleneck's alpha (Eq. 3 and 4).

    No sign is needed: with Z = (1 - share) F + share epsilon, keeping what the objective wants in Z (share
    1 - lambda, plus) and removing it from Z (share lambda, minus) have the same gradient by lambda, (F - epsilon) times
    that of the objective by Z.

    Args:
        problem: model, features and target.
        bottleneck: its alpha is moved in place.
        update: moves alpha.
        settings: beta, steps, noise and objective are used.
        generator: source of the noise.
        on_step: see `OnStep`.
    """
    rows = len(problem.features)
    samples = settings.noise_samples
    # every noise draw runs all rows, so that one pass of the network serves all draws
    again = torch.arange(rows, device=problem.features.device).repeat(samples)
    carried = select_carried(problem.carried, rows, again)
    target = None if problem.target is None else problem.target[again]
    reference = problem.reference[again]
    weight = settings.beta / problem.features[0].numel()
    protect = _protection_from_in_place(problem)
    affine = affine_batch_norm(problem.features.device)
    loss = settings.loss
    for step in range(settings.steps):
        noise = bottleneck.draw_noise(samples, generator, settings.antithetic)
        lambda_, complement = bottleneck.mask()
        mixed = bottleneck.mix(noise, problem.noise_share(lambda_, complement))
        leaf = mixed.to(problem.features.dtype).requires_grad_(True)
        with affine:
            output = at_least_float32(problem.parts.above(protect(leaf), carried))
        losses = loss(output, target, reference)
        (gradient,) = torch.autograd.grad(losses.sum() / samples, leaf)
        on_step(step, losses.detach().unflatten(0, (samples, rows)).mean(0))
        gradient = bottleneck.signal_gradient(noise, gradient.to(bottleneck.alpha.dtype))
        update.step(weight, lambda_, complement, gradient)


def at_least_float32(values: Tensor) -> Tensor:
    """Widen half precision to float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _protection_from_in_place(problem: Problem) -> Callable[[Tensor], Tensor]:
    """Return a copy function if the part above the layer begins with an in-place activation, else the identity.

    Such an activation may not write on the leaf of a gradient. A copy at every step is made only where it is needed.
    """
    with torch.no_grad():
        first = torch.zeros(1, dtype=torch.long, device=problem.features.device)
        probe = problem.features[:1].clone()
        problem.parts.above(probe, select_carried(problem.carried, len(problem.features), first))
    was_written = probe._version > 0
    return Tensor.clone if was_written else (lambda features: features)


def check_reference(reference: Tensor, values: Tensor | None) -> None:
    """Reject an output that would give a map of NaN, or a class index that would fail deep inside a GPU kernel.

    Args:
        reference: the model's output on the untouched features.
        values: the targets, (N,) or None.

    Raises:
        ValueError: the output is not finite (NotFiniteError), or has no such class.
    """
    if not torch.isfinite(reference).all():
        raise NotFiniteError(
            "the model's output is NaN or infinite: its training has diverged (train with a lower learning rate), or "
            "an image is invalid (inspect the data)"
        )
    if values is not None and not values.is_floating_point() and reference.ndim == 2 and len(values):
        low = int(values.min())
        high = int(values.max())
        if low < 0 or high >= reference.shape[1]:
            wrong = low if low < 0 else high
            raise ValueError(f"target holds class {wrong}; the model has {reference.shape[1]} outputs")
