"""Information bottleneck attribution: how many bits of each image region the model needs for its output."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attribution, Attributor, Rows, Target
from lightning_chex.attribution.bottleneck.closed_form import ClosedForm
from lightning_chex.attribution.bottleneck.mask import ALPHA_LIMIT, Bottleneck
from lightning_chex.attribution.bottleneck.objectives import (
    SCORE_OBJECTIVES,
    Objective,
    ObjectiveName,
    deviation,
    get_objective,
    maximize_score,
    squared_error,
)
from lightning_chex.attribution.bottleneck.optimization import Problem, optimize
from lightning_chex.attribution.bottleneck.solution import BottleneckReport, Solution
from lightning_chex.attribution.bottleneck.solving import layer_maps, solve_in_chunks
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics, Granularity
from lightning_chex.attribution.description import MethodDescription
from lightning_chex.attribution.targets import Targets


class IBA(Attributor):
    """Information Bottleneck Attribution (Khakzar et al. 2021, Eq. 1-3; Schulz et al. 2020).

    For each image a mask lambda over the features of one layer is optimised: it lets noise in wherever the model can do
    without the features, and what information still passes, in bits, is the map. Many images are optimised jointly and
    independently; the network below the layer runs once, frozen weights receive no gradients.

    Args:
        layer: dotted name of the module at whose output the bottleneck sits; its output must be (B, C, h, w).
        beta: weight of the information term; larger keeps less. It is what a mean information of one nat per neuron of
            the layer costs, in the unit of the objective: at a layer of M neurons one bit more in the whole map has to
            lower the objective by beta ln 2 / M. None: 10 for an objective of a class, 300 for one of a score (10 and
            30 for `InverseIBA`). The number of outputs has no effect, except in ``one_hot_binary_cross_entropy``, a
            mean over K outputs, in which the explained class weighs 1 / K: beta 10 there is about 10 K elsewhere.
        steps: optimisation steps.
        lr: Adam's learning rate on alpha at the first step.
        lr_schedule: ``linear`` lowers the learning rate step by step, to reach zero after the last; ``constant``.
        adam_betas: how slowly Adam forgets the gradient and its square. The usual 0.999 outlasts all steps here:
            the large gradients of the information term at the start then hold alpha where it is.
        noise_samples: noise draws per step.
        antithetic: draw them as pairs, epsilon and its mirror image around mu, which is why two do the work of many.
        objective: what the masked model has to keep: ``binary_cross_entropy`` of the explained class alone,
            ``one_hot_binary_cross_entropy`` over all outputs (the authors' code), ``softmax_cross_entropy``, or, for
            regression, ``deviation`` from the model's own prediction, ``squared_error`` to a given score,
            ``maximize_score``; or a function ``(output, target, reference) -> (B,)``.
        blur_sigma: width, in feature cells, of the Gaussian that smooths the mask; 0 for none.
        initial_alpha: alpha at the start; 2 lets 88 % of the signal through, the authors' 5 99.3 %.
        statistics_per: one mean and deviation per ``neuron``, or per ``channel``, which needs fewer images.
        update: what moves alpha: ``adam``, or ``closed_form``, which puts it at each step where it is optimal if the
            gradient of the objective stays what it is. With ``steps=4, initial_alpha=0`` the latter took two fifths of
            the time, for maps that agreed by a rank correlation of .99, bits within 1 % in the mean, of two networks at
            128 px (benchmarks/results/faster_bottleneck.md); ``lr``, ``lr_schedule`` and ``adam_betas`` play no part
            then.
        bfloat16: run the network in bfloat16, as autocast does; masks and optimiser stay in float32. Faster where the
            machine computes in it, for maps that differ about as much as those of two seeds of the noise.
        batch_size: images optimised jointly; changes no map. None takes what fits the memory. When the memory does
            not suffice, it is halved.
        memory: budget in GiB for the automatic batch size; None for 70 % of what is free.
        seed: seed of the noise; the global random state is neither used nor changed.

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
    unit = "bits per pixel"

    default_beta: ClassVar[Mapping[str, float]] = {"class": 10.0, "score": 300.0}
    """Where ``beta`` is None, for objectives of a class and of a score."""

    updates: ClassVar[Sequence[str]] = ("adam", "closed_form")
    """What may move alpha."""

    def __init__(
        self,
        layer: str = "features.denseblock3",
        beta: float | None = None,
        steps: int = 15,
        lr: float = 2.0,
        lr_schedule: Literal["linear", "constant"] = "linear",
        adam_betas: tuple[float, float] = (0.5, 0.9),
        noise_samples: int = 2,
        antithetic: bool = True,
        objective: ObjectiveName | Objective = "binary_cross_entropy",
        blur_sigma: float = 1.0,
        initial_alpha: float = 2.0,
        statistics_per: Granularity = "neuron",
        bfloat16: bool = False,
        batch_size: int | None = None,
        memory: float | None = None,
        seed: int = 0,
        update: Literal["adam", "closed_form"] = "adam",
    ) -> None:
        super().__init__(batch_size)
        self.layer = layer
        self.objective = get_objective(objective)
        # a function of the user's own is taken to explain a class
        self.explains_class = self.objective not in SCORE_OBJECTIVES
        self.beta = beta if beta is not None else self.default_beta["class" if self.explains_class else "score"]
        self.steps = steps
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.adam_betas = adam_betas
        self.noise_samples = noise_samples
        self.antithetic = antithetic
        self.blur_sigma = blur_sigma
        self.initial_alpha = initial_alpha
        self.bfloat16 = bfloat16
        self.memory = memory
        self.seed = seed
        self.update = update
        self.statistics = FeatureStatistics(statistics_per)
        limit = f"{ALPHA_LIMIT:g}"
        for name, fits, wanted in (
            ("beta", 0 <= self.beta < math.inf, "must be a number, at least 0"),
            ("steps", steps >= 1, "must be at least 1"),
            ("lr", 0 < lr < math.inf, "must be a number greater than 0"),
            ("lr_schedule", lr_schedule in ("linear", "constant"), "is unknown; choose linear or constant"),
            ("adam_betas", [0 <= value < 1 for value in adam_betas] == [True, True], "must be two numbers in [0, 1)"),
            ("noise_samples", noise_samples >= 1, "must be at least 1"),
            ("blur_sigma", 0 <= blur_sigma < math.inf, "must be a number, at least 0"),
            ("initial_alpha", abs(initial_alpha) <= ALPHA_LIMIT, f"must lie between -{limit} and {limit}"),
            ("update", update in IBA.updates, "is unknown; choose adam or closed_form"),
            ("update", update in self.updates, f"is not offered by {type(self).__name__}; choose adam"),
            ("beta", update == "adam" or self.beta > 0, "must be greater than 0 with update='closed_form'"),
            ("memory", memory is None or memory > 0, "must be greater than 0"),
        ):
            if not fits:
                raise ValueError(f"{name}={getattr(self, name)!r} {wanted}")

    score_variants: ClassVar[Mapping[Objective, tuple[str, str]]] = {
        squared_error: ("blue", "lead to the true score"),
        maximize_score: ("indigo", "lead to a high score"),
        deviation: ("olive", "lead to the score the network gives to the whole image"),
    }
    """Objective of a score -> colour, and what the information that is left must do. One chart can hold all three."""

    def about(self) -> MethodDescription:
        """Describe the method, for an objective of a score what the objective asks for."""
        general = super().about()
        if self.explains_class or self.objective not in self.score_variants:
            return general
        color, purpose = self.score_variants[self.objective]
        description = f"IBA for a network that predicts a score; the information that is left must {purpose}."
        return MethodDescription(f"{general.title} of a score", color, description)

    @property
    def members(self) -> Sequence["IBA"]:
        """The method itself, which has one layer."""
        return (self,)

    @property
    def needs_true_score(self) -> bool:
        """Whether the objective is squared_error."""
        return self.objective is squared_error

    @staticmethod
    def noise_share(lambda_: Tensor, complement: Tensor) -> Tensor:
        """Share of noise in the features that the objective sees: 1 - lambda (Eq. 1)."""
        return complement

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

        def finish(solution: Solution) -> dict[str, Tensor]:
            return solution.report(images.shape[-2:])

        with self._prepared(model, images, target, rows) as (network, clean, targets):
            parts = [part for (part,) in solve_in_chunks([self], network, clean, targets, finish, recorded=True)]
        if not parts:
            raise ValueError("there is nothing to report on: no target was given")
        return BottleneckReport(**{name: torch.cat([part[name] for part in parts]).float() for name in parts[0]})

    def spread(
        self,
        model: nn.Module,
        images: Tensor,
        target: Target = None,
        rows: Rows = None,
        seeds: Iterable[int] = range(5),
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the maps over noise seeds.

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
            other = copy.copy(self)
            other.seed = seed
            maps.append(other.attribute(model, images, target, rows))
        if len(maps) < 2:
            raise ValueError(f"seeds holds {len(maps)} seed(s); a spread needs at least two")
        stacked = torch.stack(maps)
        return stacked.mean(0), stacked.std(0)

    def solve(self, problem: Problem, recorded: bool = False) -> Solution:
        """Optimise one bottleneck; if ``recorded``, also keep objective and total bits before each step."""
        bottleneck = Bottleneck(
            problem.features, self.statistics, self.blur_sigma, self.initial_alpha, self.lr, self.adam_betas
        )
        generator = torch.Generator(problem.features.device).manual_seed(self.seed)
        solution = Solution(bottleneck, torch.empty(0))
        last_fifth = self.steps - max(1, self.steps // 5)

        def watch(step: int, objective: Tensor) -> None:
            if self.lr_schedule == "linear":
                bottleneck.set_learning_rate(self.lr * (1 - step / self.steps))
            if step == last_fifth:
                solution.earlier = solution.cells()
            if recorded:
                solution.objective.append(objective)
                solution.information.append(solution.cells().sum((1, 2)))

        optimize(
            problem, bottleneck, self.noise_share, self.beta, self.steps, self.noise_samples, self.antithetic,
            generator, watch, None if self.update == "adam" else ClosedForm(bottleneck).step,
        )  # fmt: skip
        return solution


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

    @staticmethod
    def noise_share(lambda_: Tensor, complement: Tensor) -> Tensor:
        """Share of noise in the features that the objective sees: lambda itself."""
        return lambda_
