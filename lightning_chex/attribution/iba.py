"""Information bottleneck attribution: how many bits of each image region the model needs for its output."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attributor, frozen
from lightning_chex.attribution.bottleneck import Bottleneck
from lightning_chex.attribution.chunks import chunk_size, in_chunks
from lightning_chex.attribution.information import bits_per_cell, bits_per_pixel, image_size
from lightning_chex.attribution.layers import LayerError, check_feature_map, feature_map_layers, get_layer, hooked
from lightning_chex.attribution.layout import in_fastest_layout, precision
from lightning_chex.attribution.objectives import SCORE_OBJECTIVES, Objective, ObjectiveName, get_objective
from lightning_chex.attribution.optimization import Course, Problem, optimize, pose_problem
from lightning_chex.attribution.partition import Partition, partition
from lightning_chex.attribution.report import BottleneckReport
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
        statistics_per: Granularity = "neuron",
        bfloat16: bool = False,
        batch_size: int | None = None,
        memory: float | None = None,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("beta", beta, 0),
            ("steps", steps, 1),
            ("noise_samples", noise_samples, 1),
            ("blur_sigma", blur_sigma, 0),
            ("batch_size", 1 if batch_size is None else batch_size, 1),
        ):
            if not value >= least:
                raise ValueError(f"{name}={value!r} must be at least {least}")
        for name, value in (("lr", lr), ("memory", 1 if memory is None else memory)):
            if not value > 0:
                raise ValueError(f"{name}={value!r} must be greater than 0")
        self.layer = layer
        self.beta = beta
        self.steps = steps
        self.lr = lr
        self.noise_samples = noise_samples
        self.objective = get_objective(objective)
        self.blur_sigma = blur_sigma
        self.initial_alpha = initial_alpha
        self.bfloat16 = bfloat16
        self.batch_size = batch_size
        self.memory = memory
        self.seed = seed
        self.statistics = FeatureStatistics(statistics_per)

    # what a child changes

    @staticmethod
    def noise_share(lambda_: Tensor, complement: Tensor) -> Tensor:
        """Share of noise in the features that the objective sees: 1 - lambda."""
        return complement

    # learning from data

    @property
    def explains_class(self) -> bool:
        """False for the regression objectives; a function of one's own is taken to explain a class."""
        return self.objective not in SCORE_OBJECTIVES

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a LayerError if the model has no such layer or, with images, if its output is no feature map."""
        get_layer(model, self.layer)
        if images is not None:
            with frozen(model), torch.no_grad():
                try:
                    partition(model, self.layer, images).below(images)
                except LayerError as error:
                    names = ", ".join(feature_map_layers(model, images))
                    raise LayerError(f"{error}; layers with a feature map: {names}") from None

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Collect feature statistics from the forward passes made within the context; they replace the former ones."""
        statistics = FeatureStatistics(self.statistics.per)

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
        statistics = FeatureStatistics(self.statistics.per)
        with frozen(model), torch.no_grad(), precision(_device(model), self.bfloat16):
            parts: Partition | None = None
            for images in batches:
                images = images.to(_device(model))
                parts = parts or partition(model, self.layer, images)
                statistics.update(parts.below(images)[0])
        if statistics.count < 2:
            raise ValueError(f"the statistics need at least 2 images, the batches held {statistics.count}")
        statistics.warn_if_few()
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

    # explaining

    def attribute(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Compute one map per target.

        Args:
            model: the network to explain; left bit for bit as it was found, also after an exception.
            images: (B, C, H, W) on the model's device.
            target: one class index per image, (B,), or several, (B, T); with ``rows``, any N of them, (N,). Floats for
                ``squared_error``; the other regression objectives need none.
            rows: the image each target belongs to, int64 (N,). Features are computed once per image, not per target.

        Returns:
            float32 bits per pixel, >= 0: (B, H, W), (B, T, H, W), or (N, H, W) with ``rows``.

        Raises:
            RuntimeError: there are no statistics yet.
            ValueError: shapes of images, target and statistics do not fit.
        """

        def finish(bottleneck: Bottleneck, course: Course) -> Tensor:
            return bits_per_pixel(bits_per_cell(bottleneck.capacity()), image_size(images)).float()

        maps = self._explain(model, images, target, rows, finish)
        joined = torch.cat(maps) if maps else images.new_zeros(0, *image_size(images), dtype=torch.float32)
        return joined if rows is not None or target is None else joined.view(*target.shape, *image_size(images))

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

        def finish(bottleneck: Bottleneck, course: Course) -> dict[str, Tensor]:
            cells = bits_per_cell(bottleneck.capacity())
            return {
                "saliency": bits_per_pixel(cells, image_size(images)),
                "lambda_": bottleneck.mask()[0],
                "capacity": cells,
                "total_bits": cells.sum((1, 2)),
                "objective": torch.stack([objective for objective, _ in course], 1),
                "information": torch.stack([bits for _, bits in course], 1),
            }

        parts = self._explain(model, images, target, rows, finish, watched=True)
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

    def _explain(
        self,
        model: nn.Module,
        images: Tensor,
        target: Tensor | None,
        rows: Tensor | None,
        finish: Callable[[Bottleneck, Course], T],
        watched: bool = False,
    ) -> list[T]:
        """Optimise chunk by chunk; ``finish`` makes what is wanted of each chunk's bottleneck."""
        targets = Targets.of(images, target, rows)
        self.check_fitted()
        if not len(targets):
            return []
        with frozen(model), precision(images.device, self.bfloat16):
            images = images.clone() if images.is_inference() else images.detach()
            parts = partition(model, self.layer, images)

            def problem(start: int, stop: int, layout: torch.memory_format) -> Problem:
                needed, index, values = targets.chunk(start, stop)
                with torch.no_grad():
                    features, carried = parts.below(images[needed].contiguous(memory_format=layout))
                    reference = parts.above(features.clone(), carried)
                return self.pose(parts, features, carried, reference, index, values)

            first, layout = in_fastest_layout(images, lambda layout: problem(0, 1, layout), self.bfloat16)

            def run(start: int, stop: int) -> T:
                return finish(*self.solve(problem(start, stop, layout), watched))

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

    def solve(self, problem: Problem, watched: bool = False) -> tuple[Bottleneck, Course]:
        """Optimise one bottleneck; if ``watched``, also record objective and total bits before each step."""
        bottleneck = Bottleneck(problem.features, self.statistics, self.blur_sigma, self.initial_alpha, self.lr)
        generator = torch.Generator(problem.features.device).manual_seed(self.seed)
        course: Course = []

        def watch(objective: Tensor) -> None:
            course.append((objective, bits_per_cell(bottleneck.capacity()).sum((1, 2))))

        optimize(
            problem, bottleneck, self.noise_share, self.beta, self.steps, self.noise_samples, generator,
            watch if watched else None,
        )  # fmt: skip
        return bottleneck, course


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
