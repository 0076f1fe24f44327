"""Information bottleneck attribution: how many bits of each image region the model needs for its output."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attribution, Attributor, frozen
from lightning_chex.attribution.bottleneck import ALPHA_LIMIT, Bottleneck
from lightning_chex.attribution.chunks import in_chunks
from lightning_chex.attribution.feature_learning import fitted_statistics, observed_statistics
from lightning_chex.attribution.information import bits_per_pixel, image_size
from lightning_chex.attribution.layers import LayerError, feature_map_layers, get_layer
from lightning_chex.attribution.layout import in_fastest_layout, precision
from lightning_chex.attribution.memory import chunk_size
from lightning_chex.attribution.objectives import SCORE_OBJECTIVES, Objective, ObjectiveName, get_objective
from lightning_chex.attribution.optimization import Problem, optimize, pose_problem
from lightning_chex.attribution.partition import Partition, partition
from lightning_chex.attribution.solution import BottleneckReport, Solution
from lightning_chex.attribution.statistics import FeatureStatistics, Granularity
from lightning_chex.attribution.targets import Targets

T = TypeVar("T")


class IBA(Attributor):
    """Information Bottleneck Attribution (Khakzar et al. 2021, Eq. 1-3; Schulz et al. 2020).

    For each image a mask lambda over the features of one layer is optimised: it lets noise in wherever the model can do
    without the features, and what information still passes, in bits, is the map. Many images are optimised jointly and
    independently; the network below the layer runs once, frozen weights receive no gradients.

    Args:
        layer: dotted name of the module at whose output the bottleneck sits; its output must be (B, C, h, w).
        beta: weight of the information term; larger keeps less. It is what a mean information of one nat per neuron of
            the layer costs, in the unit of the objective: at a layer of M neurons one bit more in the whole map has to
            lower the objective by beta ln 2 / M. None takes DEFAULTS. The number of outputs plays no
            part, except in ``one_hot_binary_cross_entropy``, a mean over K outputs, in which the explained class weighs
            1 / K: beta 10 there is about 10 K elsewhere.
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

    unit = "bits per pixel"

    default_beta: ClassVar[Mapping[str, float]] = {"class": 10.0, "score": 300.0}
    """Where ``beta`` is None, for objectives of a class and of a score."""

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
    ) -> None:
        super().__init__(batch_size)
        for name, value, least in (
            ("beta", 0 if beta is None else beta, 0),
            ("steps", steps, 1),
            ("noise_samples", noise_samples, 1),
            ("blur_sigma", blur_sigma, 0),
        ):
            if not value >= least:
                raise ValueError(f"{name}={value!r} must be at least {least}")
        for name, value in (("lr", lr), ("memory", 1 if memory is None else memory)):
            if not value > 0:
                raise ValueError(f"{name}={value!r} must be greater than 0")
        if abs(initial_alpha) > ALPHA_LIMIT:
            raise ValueError(f"initial_alpha={initial_alpha!r} must lie between -{ALPHA_LIMIT:g} and {ALPHA_LIMIT:g}")
        if lr_schedule not in ("linear", "constant"):
            raise ValueError(f"lr_schedule={lr_schedule!r} is unknown; choose linear or constant")
        if len(adam_betas) != 2 or not all(0 <= value < 1 for value in adam_betas):
            raise ValueError(f"adam_betas={adam_betas!r} must be two numbers in [0, 1)")
        self.objective = get_objective(objective)
        # a function of one's own is taken to explain a class
        self.explains_class = self.objective not in SCORE_OBJECTIVES
        self.layer = layer
        self.beta = beta if beta is not None else self.default_beta["class" if self.explains_class else "score"]
        self.steps = steps
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.adam_betas = (adam_betas[0], adam_betas[1])
        self.noise_samples = noise_samples
        self.antithetic = antithetic
        self.blur_sigma = blur_sigma
        self.initial_alpha = initial_alpha
        self.bfloat16 = bfloat16
        self.memory = memory
        self.seed = seed
        self.statistics = FeatureStatistics(statistics_per)

    @staticmethod
    def noise_share(lambda_: Tensor, complement: Tensor) -> Tensor:
        """Share of noise in the features that the objective sees: 1 - lambda (Eq. 1)."""
        return complement

    # learning from data

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a LayerError if the model has no such layer or, with images, if its output is no feature map."""
        get_layer(model, self.layer)
        if images is not None:
            with frozen(model) as network, torch.no_grad():
                try:
                    partition(network, self.layer, images).below(images)
                except LayerError as error:
                    names = ", ".join(feature_map_layers(network, images))
                    raise LayerError(f"{error}; layers with a feature map: {names}") from None

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Collect feature statistics from the forward passes made within the context; they replace the former ones."""
        with observed_statistics(model, self.layer, self.statistics.per) as statistics:
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
        self.statistics = fitted_statistics(model, self.layer, batches, self.statistics.per, self.bfloat16)
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

    # explaining

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        """Compute one map per target, bits per pixel, >= 0; features are computed once per image, not per target.

        Raises:
            RuntimeError: there are no statistics yet.
            ValueError: the images have another size than those of the statistics.
        """

        def finish(solution: Solution) -> tuple[Tensor, Tensor, Tensor]:
            cells = solution.cells()
            return bits_per_pixel(cells, image_size(images)).float(), solution.convergence(cells), cells

        parts = self._solutions(model, images, targets, finish)
        if not parts:
            return Attribution(images.new_zeros(0, *image_size(images)).float(), images.new_zeros(0).float())
        return Attribution(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def report(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, rows: Tensor | None = None
    ) -> BottleneckReport:
        """Explain as `attribute` does, and tell all there is to know: mask, capacity, and the course of optimisation.

        Args:
            model: see `attribute`.
            images: see `attribute`.
            target: see `attribute`; several per image, (B, T), are taken one after the other, N = B T.
            rows: see `attribute`.
        """

        def finish(solution: Solution) -> dict[str, Tensor]:
            return solution.report(image_size(images))

        with self._prepared(model, images, target, rows) as (network, clean, targets):
            parts = self._solutions(network, clean, targets, finish, recorded=True)
        if not parts:
            raise ValueError("there is nothing to report on: no target was given")
        names = [field.name for field in fields(BottleneckReport)]
        return BottleneckReport(**{name: torch.cat([part[name] for part in parts]).float() for name in names})

    def spread(
        self,
        model: nn.Module,
        images: Tensor,
        target: Tensor | None = None,
        rows: Tensor | None = None,
        seeds: Iterable[int] = range(5),
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the maps over noise seeds: how much of a map is chance.

        Args:
            model: see `attribute`.
            images: see `attribute`.
            target: see `attribute`.
            rows: see `attribute`.
            seeds: at least two seeds.

        Returns:
            Two tensors shaped like the result of `attribute`, bits per pixel.
        """
        kept, maps = self.seed, []
        try:
            for self.seed in seeds:
                maps.append(self.attribute(model, images, target, rows))
        finally:
            self.seed = kept
        if len(maps) < 2:
            raise ValueError(f"seeds holds {len(maps)} seed(s); a spread needs at least two")
        stacked = torch.stack(maps)
        return stacked.mean(0), stacked.std(0)

    def _solutions(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Targets,
        finish: Callable[[Solution], T],
        recorded: bool = False,
    ) -> list[T]:
        """Optimise chunk by chunk; ``finish`` takes what is wanted from each chunk's solution."""
        self.check_fitted()
        if not len(targets):
            return []
        with precision(images.device, self.bfloat16):
            parts = partition(model, self.layer, images)

            def problem(start: int, stop: int, layout: torch.memory_format) -> Problem:
                needed, index, values = targets.chunk(start, stop)
                with torch.no_grad():
                    features, carried = parts.below(images[needed].contiguous(memory_format=layout))
                    reference = parts.above(features.clone(), carried)
                return self.pose(parts, features, carried, reference, index, values)

            first, layout = in_fastest_layout(images, lambda layout: problem(0, 1, layout), self.bfloat16)

            def run(start: int, stop: int) -> T:
                return finish(self.solve(problem(start, stop, layout), recorded))

            size = self.batch_size or chunk_size(first, self.noise_samples, self.memory)
            return list(in_chunks(len(targets), size, run))

    def check_fitted(self) -> None:
        """Raise a RuntimeError if there are no statistics yet."""
        if self.statistics.count < 2:
            raise RuntimeError(f"{type(self).__name__} has no feature statistics yet: call fit(model, batches) first")

    def pose(
        self,
        parts: Partition,
        features: Tensor,
        carried: tuple[Any, ...],
        reference: Tensor,
        index: Tensor,
        values: Tensor | None,
    ) -> Problem:
        """Pose the problem for targets of images whose features are at hand; see `pose_problem`."""
        if features.shape[1:] != self.statistics.shape:
            raise ValueError(
                f"the features of layer {self.layer!r} have shape {tuple(features.shape[1:])}, the statistics "
                f"{tuple(self.statistics.shape)}: fit and explain with images of one size"
            )
        return pose_problem(parts, features, carried, reference, index, values, self.objective)

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
            generator, watch,
        )  # fmt: skip
        return solution
