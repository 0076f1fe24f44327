"""Settings of a bottleneck and its optimisation, shared by every method of the family."""

import math
from dataclasses import dataclass
from typing import Literal

from lightning_chex.attribution.bottleneck.mask import ALPHA_LIMIT
from lightning_chex.attribution.bottleneck.objectives import Objective, ObjectiveName, get_objective


@dataclass(frozen=True)
class BottleneckSettings:
    """Settings of a bottleneck and its optimisation.

    The loss of an image is ``objective + beta * mean(capacity in nats over the neurons of the layer)`` (Eq. 3), minus
    the objective for `InverseIBA` (Eq. 4).

    Args:
        beta: weight of the information term, >= 0; larger keeps less.
        steps: optimisation steps.
        lr: Adam's learning rate on alpha at the first step.
        lr_schedule: ``linear`` lowers the learning rate step by step, to reach zero after the last; ``constant``.
        adam_betas: Adam's (beta1, beta2). The usual 0.999 outlasts all steps here: the large gradients of the
            information term at the start would then keep the steps small to the end.
        noise_samples: noise draws per step.
        antithetic: draw them as pairs, epsilon and its mirror image around mu, which is why two do the work of many.
        objective: the loss between the output on the masked features and the target: ``binary_cross_entropy`` of the
            explained class alone, ``one_hot_binary_cross_entropy`` over all outputs (the authors' code),
            ``softmax_cross_entropy``, or, for regression, ``deviation`` from the model's own prediction,
            ``squared_error`` to a given score, ``maximize_score``; or a function
            ``(output, target, reference) -> (B,)``.
        blur_sigma: width, in feature cells, of the Gaussian that smooths the mask; 0 for none.
        initial_alpha: alpha at the start; 2 lets 88 % of the signal through, the authors' 5 99.3 %.
        update: how alpha moves: ``adam``, or ``closed_form``, which puts it at each step where it is optimal if the
            gradient of the objective stays what it is. With ``steps=4, initial_alpha=0`` the latter took two fifths of
            the time, for maps that agreed by a rank correlation of .99, bits within 1 % in the mean, of two networks at
            128 px (benchmarks/results/faster_bottleneck.md); ``lr``, ``lr_schedule`` and ``adam_betas`` have no effect
            then.
        bfloat16: run the network in bfloat16, as autocast does; masks and optimiser stay in float32. Faster where the
            machine computes in it, for maps that differ about as much as those of two seeds of the noise.
        memory: budget in GiB for the automatic batch size; None for 70 % of what is free.
        seed: seed of the noise; the global random state is neither used nor changed.

    Raises:
        ValueError: a setting is out of its range.
    """

    beta: float = 10.0
    steps: int = 15
    lr: float = 2.0
    lr_schedule: Literal["linear", "constant"] = "linear"
    adam_betas: tuple[float, float] = (0.5, 0.9)
    noise_samples: int = 2
    antithetic: bool = True
    objective: ObjectiveName | Objective = "binary_cross_entropy"
    blur_sigma: float = 1.0
    initial_alpha: float = 2.0
    update: Literal["adam", "closed_form"] = "adam"
    bfloat16: bool = False
    memory: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        get_objective(self.objective)  # raises for an unknown name
        betas_in_range = len(self.adam_betas) == 2 and all(0 <= value < 1 for value in self.adam_betas)
        self._require("beta", 0 <= self.beta < math.inf, "must be a number, at least 0")
        self._require("steps", self.steps >= 1, "must be at least 1")
        self._require("lr", 0 < self.lr < math.inf, "must be a number greater than 0")
        self._require(
            "lr_schedule", self.lr_schedule in ("linear", "constant"), "is unknown; choose linear or constant"
        )
        self._require("adam_betas", betas_in_range, "must be two numbers in [0, 1)")
        self._require("noise_samples", self.noise_samples >= 1, "must be at least 1")
        self._require("blur_sigma", 0 <= self.blur_sigma < math.inf, "must be a number, at least 0")
        limit = f"{ALPHA_LIMIT:g}"
        alpha_in_range = abs(self.initial_alpha) <= ALPHA_LIMIT
        self._require("initial_alpha", alpha_in_range, f"must lie between -{limit} and {limit}")
        self._require("update", self.update in ("adam", "closed_form"), "is unknown; choose adam or closed_form")
        if self.update == "closed_form":  # it divides by beta
            self._require("beta", self.beta > 0, "must be greater than 0 with update='closed_form'")
        self._require("memory", self.memory is None or self.memory > 0, "must be greater than 0")

    def _require(self, name: str, is_valid: bool, requirement: str) -> None:
        if not is_valid:
            raise ValueError(f"{name}={getattr(self, name)!r} {requirement}")

    @property
    def loss(self) -> Objective:
        """Function of ``objective``."""
        return get_objective(self.objective)

    def learning_rate(self, step: int) -> float:
        """Return Adam's learning rate at a step, counted from 0."""
        if self.lr_schedule == "linear":
            return self.lr * (1 - step / self.steps)
        return self.lr

    @property
    def convergence_step(self) -> int:
        """First of the last fifth of the steps; `Attribution.convergence` compares with the map before it."""
        return self.steps - max(1, self.steps // 5)
