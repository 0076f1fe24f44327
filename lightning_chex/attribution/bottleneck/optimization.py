"""The optimisation of a bottleneck, the same loop for IBA and Inverse IBA."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_chex.attribution.bottleneck.mask import Bottleneck
from lightning_chex.attribution.bottleneck.objectives import Objective
from lightning_chex.attribution.network.execution import affine_batch_norm
from lightning_chex.attribution.network.layers import NotFiniteError
from lightning_chex.attribution.network.partition import Partition, select_carried


@dataclass(frozen=True)
class Problem:
    """Optimisation problem of a bottleneck, for the features of N explained targets.

    Attributes:
        parts: the model cut at the layer.
        features: (N, C, h, w), one row per explained target.
        carried: what else the upper part needs, rows alike.
        target: one value per row, or None.
        reference: the model's output on the untouched features, rows alike.
        objective: the loss per row.
    """

    parts: Partition
    features: Tensor
    carried: tuple[Any, ...]
    target: Tensor | None
    reference: Tensor
    objective: Objective


def optimize(
    problem: Problem,
    bottleneck: Bottleneck,
    noise_share: Callable[[Tensor, Tensor], Tensor],
    beta: float,
    steps: int,
    noise_samples: int,
    antithetic: bool,
    generator: torch.Generator,
    watch: Callable[[int, Tensor], None],
    move: Callable[[float, Tensor, Tensor, Tensor], None] | None = None,
) -> None:
    """Minimise beta L_I +- objective over the bottleneck's alpha (Eq. 3 and 4).

    No sign is needed: with Z = (1 - share) F + share epsilon, keeping what the objective wants in Z (share
    1 - lambda, plus) and removing it from Z (share lambda, minus) have the same gradient by lambda, (F - epsilon) times
    that of the objective by Z.

    Args:
        problem: model, features, target and objective.
        bottleneck: holds alpha, which is moved in place.
        noise_share: of lambda and 1 - lambda, the one that is the share of noise in Z.
        beta: weight of the information term.
        steps: how many updates.
        noise_samples: noise draws per step.
        antithetic: draw them as pairs of opposite sign.
        generator: where the noise comes from.
        watch: called at each step, before the update, with its number from 0 and the objective per row, (N,).
        move: what moves alpha, called as `Bottleneck.step`, which it is by default.
    """
    rows = len(problem.features)
    again = torch.arange(rows, device=problem.features.device).repeat(noise_samples)
    carried = select_carried(problem.carried, rows, again)
    target = None if problem.target is None else problem.target[again]
    reference = problem.reference[again]
    weight = beta / problem.features[0].numel()
    shield = _in_place_shield(problem)
    affine = affine_batch_norm(problem.features.device)
    move = move or bottleneck.step
    for step in range(steps):
        noise = bottleneck.draw_noise(noise_samples, generator, antithetic)
        lambda_, complement = bottleneck.mask()
        mixed = bottleneck.mix(noise, noise_share(lambda_, complement))
        leaf = mixed.to(problem.features.dtype).requires_grad_(True)
        with affine:
            output = at_least_float32(problem.parts.above(shield(leaf), carried))
        losses = problem.objective(output, target, reference)
        (gradient,) = torch.autograd.grad(losses.sum() / noise_samples, leaf)
        watch(step, losses.detach().unflatten(0, (noise_samples, rows)).mean(0))
        gradient = bottleneck.signal_gradient(noise, gradient.to(bottleneck.alpha.dtype))
        move(weight, lambda_, complement, gradient)


def at_least_float32(values: Tensor) -> Tensor:
    """Widen half precision to float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _in_place_shield(problem: Problem) -> Callable[[Tensor], Tensor]:
    """A copy of the features where the upper part begins with an in-place activation, else nothing.

    Such an activation may not write on the leaf of a gradient; a copy at every step is only made where it is needed.
    """
    with torch.no_grad():
        first = torch.zeros(1, dtype=torch.long, device=problem.features.device)
        probe = problem.features[:1].clone()
        problem.parts.above(probe, select_carried(problem.carried, len(problem.features), first))
    return Tensor.clone if probe._version > 0 else (lambda features: features)


def check_reference(reference: Tensor, values: Tensor | None) -> None:
    """Refuse an output that would give a map of NaN, or an index that would fail deep inside a GPU kernel.

    Args:
        reference: the model's output on the untouched features.
        values: the targets, (N,) or None.

    Raises:
        ValueError: the output is not finite (NotFiniteError), or has no such class.
    """
    if not torch.isfinite(reference).all():
        raise NotFiniteError(
            "the model's output is NaN or infinite: its training has diverged (train with a lower learning rate), or "
            "an image is odd (inspect the data)"
        )
    if values is not None and not values.is_floating_point() and reference.ndim == 2 and len(values):
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= reference.shape[1]:
            raise ValueError(
                f"target holds class {high if low >= 0 else low}; the model has {reference.shape[1]} outputs"
            )
