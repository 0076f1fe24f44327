"""Maps of the bottlenecks of one or several layers: problems posed in chunks that fit the memory, and solved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attribution
from lightning_chex.attribution.bottleneck.memory import chunk_size
from lightning_chex.attribution.bottleneck.optimization import (
    NoiseShare,
    Problem,
    at_least_float32,
    check_reference,
    optimize,
)
from lightning_chex.attribution.bottleneck.settings import BottleneckSettings
from lightning_chex.attribution.bottleneck.solution import BottleneckReport, bits_per_pixel
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics
from lightning_chex.attribution.network.chunks import explain_out_of_memory, in_chunks
from lightning_chex.attribution.network.execution import in_fastest_layout, precision
from lightning_chex.attribution.network.layers import features_at
from lightning_chex.attribution.network.partition import Partition, partition, select_carried
from lightning_chex.attribution.network.sharing import shared
from lightning_chex.attribution.targets import Targets

T = TypeVar("T")


class Layer(Protocol):
    """Protocol of the bottleneck of one layer, such as an `IBA`.

    Attributes:
        layer: dotted name.
        statistics: of the layer's features.
        settings: of the bottleneck and its optimisation.
        batch_size: targets optimised jointly; None for what fits the memory.
    """

    layer: str
    statistics: FeatureStatistics
    settings: BottleneckSettings
    batch_size: int | None
    _fitting_rows: int | None

    @property
    def noise_share(self) -> NoiseShare:
        """See `Problem`."""


def layer_maps(layers: Sequence[Layer], model: nn.Module, images: Tensor, targets: Targets) -> list[Attribution]:
    """Compute the maps of each layer, bits per pixel, with their cells.

    Args:
        layers: a bottleneck each; the first one's batch size, memory and precision apply to all.
        model: the network, frozen.
        images: (B, C, H, W).
        targets: N of them.

    Returns:
        N maps for each layer.

    Raises:
        RuntimeError: there are no statistics yet.
        ValueError: the images have another size than those of the statistics.
    """
    size = images.shape[-2:]

    def solve(problems: Sequence[Problem]) -> list[Attribution]:
        maps = []
        for layer, problem in zip(layers, problems, strict=True):
            solution = optimize(problem, layer.settings, generator_of(layer.settings, images.device))
            cells = solution.cells()
            maps.append(Attribution(bits_per_pixel(cells, size).float(), solution.convergence(cells), cells))
        return maps

    chunks = solve_in_chunks(layers, model, images, targets, solve)
    if not chunks:
        empty = images.new_zeros(0, *size, dtype=torch.float32)
        return [Attribution(empty, empty[:, 0, 0])] * len(layers)
    return [joined(maps_of_layer) for maps_of_layer in zip(*chunks, strict=True)]


def layer_report(layer: Layer, model: nn.Module, images: Tensor, targets: Targets) -> BottleneckReport:
    """Compute the maps of a layer with mask, information and the course of the optimisation; arguments as above.

    Raises:
        ValueError: there are no targets.
    """

    def solve(problems: Sequence[Problem]) -> dict[str, Tensor]:
        (problem,) = problems
        generator = generator_of(layer.settings, images.device)
        return optimize(problem, layer.settings, generator, recorded=True).report(images.shape[-2:])

    chunks = solve_in_chunks([layer], model, images, targets, solve)
    if not chunks:
        raise ValueError("there is nothing to report on: no target was given")
    return BottleneckReport(**{name: torch.cat([chunk[name] for chunk in chunks]).float() for name in chunks[0]})


def generator_of(settings: BottleneckSettings, device: torch.device) -> torch.Generator:
    """Return the source of the noise: seeded anew for every chunk, so that no map depends on the division."""
    return torch.Generator(device).manual_seed(settings.seed)


def joined(chunks: Sequence[Attribution]) -> Attribution:
    """Join the maps of chunks that have cells."""
    return Attribution(
        torch.cat([chunk.maps for chunk in chunks]),
        torch.cat([chunk.convergence for chunk in chunks]),
        torch.cat([chunk.cells for chunk in chunks if chunk.cells is not None]),
    )


def solve_in_chunks(
    layers: Sequence[Layer],
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    solve: Callable[[Sequence[Problem]], T],
) -> list[T]:
    """Pose the problems of all layers chunk by chunk, and solve them.

    Args:
        layers: see `layer_maps`.
        model: see `layer_maps`.
        images: see `layer_maps`.
        targets: see `layer_maps`.
        solve: called with a problem for each layer, for the same targets. Only what it returns is kept.

    Returns:
        What ``solve`` returned, for each chunk of the targets; empty if there are no targets.
    """
    for layer in layers:
        if layer.statistics.count < 2:
            raise RuntimeError(f"{type(layer).__name__} has no feature statistics yet: call fit(model, batches) first")
    if not len(targets):
        return []
    first = layers[0]
    settings = first.settings
    with precision(images.device, settings.bfloat16):
        network = DividedNetwork(model, layers, images)
        with explain_out_of_memory():
            probe, layout = in_fastest_layout(
                images, lambda layout: network.pose(targets, 0, 1, layout), settings.bfloat16
            )
        size = first.batch_size
        if size is None:
            size = min(chunk_size(problem, settings.noise_samples, settings.memory) for problem in probe)

        def run(start: int, stop: int) -> T:
            return solve(network.pose(targets, start, stop, layout))

        return list(in_chunks(len(targets), size, run, first))


@dataclass(frozen=True)
class LayerFeatures:
    """Result of running images once.

    Attributes:
        features: (B, C, h, w) of each layer.
        carried: other tensors that the part above each layer needs.
        output: the model's output, (B, K).
    """

    features: Sequence[Tensor]
    carried: Sequence[tuple[Any, ...]]
    output: Tensor


class DividedNetwork:
    """A network divided at several layers, which poses the optimisation problem of each.

    Args:
        model: the network, frozen.
        layers: see `layer_maps`.
        images: (B, C, H, W); each is run once, however many targets it has in a chunk.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], images: Tensor) -> None:
        self._model = model
        self._layers = layers
        self._images = images
        self._parts: list[Partition] = [partition(model, layer.layer, images) for layer in layers]

    def pose(self, targets: Targets, start: int, stop: int, layout: torch.memory_format) -> list[Problem]:
        """Pose the problem of each layer, for the targets ``start`` to ``stop``; images are run in a memory layout."""
        needed, index, values = targets.chunk(start, stop)
        names = tuple(layer.layer for layer in self._layers)
        key = (names, tuple(needed.tolist()), layout, self._layers[0].settings.bfloat16)

        def run() -> LayerFeatures:
            return self._forward(self._images[needed].contiguous(memory_format=layout))

        # methods that explain the same images at the same layers run them once, see shared_features
        result = shared(self._model, self._images, key, run)
        for layer, features in zip(self._layers, result.features, strict=True):
            _check_size(layer, features)
        check_reference(result.output, values)
        reference = at_least_float32(result.output)[index]
        problems = []
        for number, layer in enumerate(self._layers):
            features = result.features[number]
            carried = select_carried(result.carried[number], len(features), index)
            problems.append(
                Problem(
                    self._parts[number],
                    features[index],
                    carried,
                    values,
                    reference,
                    layer.statistics,
                    layer.noise_share,
                )
            )
        return problems

    def _forward(self, images: Tensor) -> LayerFeatures:
        """Run images once."""
        with torch.no_grad():
            if len(self._parts) == 1:
                (part,) = self._parts
                features, carried = part.below(images)
                # a copy: an in-place activation above the layer must not change the features
                return LayerFeatures([features], [carried], part.above(features.clone(), carried))
            all_features, output = features_at(self._model, [layer.layer for layer in self._layers], images)
            return LayerFeatures(list(all_features), [part.carried(images) for part in self._parts], output)


def _check_size(layer: Layer, features: Tensor) -> None:
    """Raise a ValueError if the features are not of the size of the layer's statistics."""
    if features.shape[1:] != layer.statistics.shape:
        raise ValueError(
            f"the features of layer {layer.layer!r} have shape {tuple(features.shape[1:])}, the statistics "
            f"{tuple(layer.statistics.shape)}: fit and explain with images of one size"
        )
