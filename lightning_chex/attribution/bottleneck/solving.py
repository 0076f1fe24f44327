"""The bottlenecks of one or several layers, optimised for the targets of a batch in chunks that fit the memory."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attribution
from lightning_chex.attribution.bottleneck.feature_learning import LayerLearner
from lightning_chex.attribution.bottleneck.objectives import Objective
from lightning_chex.attribution.bottleneck.optimization import Problem, at_least_float32, check_reference
from lightning_chex.attribution.bottleneck.solution import Solution, bits_per_pixel
from lightning_chex.attribution.network.chunks import chunk_size, explain_out_of_memory, in_chunks
from lightning_chex.attribution.network.execution import in_fastest_layout, precision
from lightning_chex.attribution.network.layers import features_at
from lightning_chex.attribution.network.partition import Partition, partition, select_carried
from lightning_chex.attribution.network.sharing import shared
from lightning_chex.attribution.targets import Targets

T = TypeVar("T")

Features = tuple[list[Tensor], list[tuple[Any, ...]], Tensor]
"""Of some images: the features of each layer, what else its upper part needs, and the model's output."""


class LayerSolver(LayerLearner, Protocol):
    """Protocol of an object that optimises the bottleneck of one layer, with the arguments of an `IBA`."""

    objective: Objective
    noise_samples: int
    batch_size: int | None
    memory: float | None
    _fitting_rows: int | None

    def solve(self, problem: Problem, recorded: bool = False) -> Solution:
        """See `IBA.solve`."""


def layer_maps(solvers: Sequence[LayerSolver], model: nn.Module, images: Tensor, targets: Targets) -> list[Attribution]:
    """Maps of each layer, bits per pixel, with their cells; see `solve_in_chunks`."""

    def finish(solution: Solution) -> tuple[Tensor, Tensor, Tensor]:
        cells = solution.cells()
        return bits_per_pixel(cells, images.shape[-2:]).float(), solution.convergence(cells), cells

    chunks = solve_in_chunks(solvers, model, images, targets, finish)
    if not chunks:
        empty = images.new_zeros(0, *images.shape[-2:], dtype=torch.float32)
        return [Attribution(empty, empty[:, 0, 0])] * len(solvers)
    by_layer = zip(*chunks, strict=True)
    return [Attribution(*(torch.cat(parts) for parts in zip(*own, strict=True))) for own in by_layer]


def solve_in_chunks(
    solvers: Sequence[LayerSolver],
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    finish: Callable[[Solution], T],
    recorded: bool = False,
) -> list[list[T]]:
    """Optimise one bottleneck for each target and layer; features are computed once per image.

    Args:
        solvers: one for each layer; the first one's batch size, memory and precision are those of all.
        model: the network, frozen.
        images: (B, C, H, W).
        targets: N of them.
        finish: takes what is wanted from a solution, which is then dropped.
        recorded: keep the course of the optimisation, see `IBA.solve`.

    Returns:
        For each chunk of the targets, what ``finish`` gave for each layer; empty if there are no targets.

    Raises:
        RuntimeError: there are no statistics yet.
        ValueError: the images have another size than those of the statistics.
    """

    def solve(problems: Sequence[Problem]) -> list[T]:
        posed = zip(solvers, problems, strict=True)
        return [finish(solver.solve(problem, recorded)) for solver, problem in posed]

    return posed_in_chunks(solvers, model, images, targets, solve)


def posed_in_chunks(
    solvers: Sequence[LayerSolver],
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    solve: Callable[[Sequence[Problem]], T],
) -> list[T]:
    """Pose the problems of all layers chunk by chunk, and solve them together; for the arguments see above.

    Args:
        solvers: see `solve_in_chunks`.
        model: see `solve_in_chunks`.
        images: see `solve_in_chunks`.
        targets: see `solve_in_chunks`.
        solve: of a problem a layer, for the same targets.

    Returns:
        For each chunk of the targets, what ``solve`` gave; empty if there are no targets.
    """
    for solver in solvers:
        if solver.statistics.count < 2:
            raise RuntimeError(f"{type(solver).__name__} has no feature statistics yet: call fit(model, batches) first")
    if not len(targets):
        return []
    one = solvers[0]
    with precision(images.device, one.bfloat16):
        parts = [partition(model, solver.layer, images) for solver in solvers]

        def problems(start: int, stop: int, layout: torch.memory_format) -> list[Problem]:
            needed, index, values = targets.chunk(start, stop)
            of = (tuple(solver.layer for solver in solvers), tuple(needed.tolist()), layout, one.bfloat16)

            def run() -> Features:
                return _features(solvers, model, parts, images[needed].contiguous(memory_format=layout))

            return _problems(solvers, parts, shared(model, images, of, run), index, values)

        with explain_out_of_memory():
            first, layout = in_fastest_layout(images, lambda layout: problems(0, 1, layout), one.bfloat16)

        def run(start: int, stop: int) -> T:
            return solve(problems(start, stop, layout))

        size = one.batch_size or min(chunk_size(problem, one.noise_samples, one.memory) for problem in first)
        return list(in_chunks(len(targets), size, run, one))


def _features(solvers: Sequence[LayerSolver], model: nn.Module, parts: Sequence[Partition], images: Tensor) -> Features:
    """Run the images once: the features of each layer, what else its upper part needs, and the model's output."""
    with torch.no_grad():
        if len(parts) == 1:
            below, beside = parts[0].below(images)
            return [below], [beside], parts[0].above(below.clone(), beside)
        features, reference = features_at(model, [solver.layer for solver in solvers], images)
        return list(features), [part.carried(images) for part in parts], reference


def _problems(
    solvers: Sequence[LayerSolver], parts: Sequence[Partition], found: Features, index: Tensor, values: Tensor | None
) -> list[Problem]:
    """Pose the problem of each layer, for targets ``values`` (N,) of the images ``index`` among those that were run."""
    features, carried, reference = found
    for solver, own in zip(solvers, features, strict=True):
        if own.shape[1:] != solver.statistics.shape:
            raise ValueError(
                f"the features of layer {solver.layer!r} have shape {tuple(own.shape[1:])}, the statistics "
                f"{tuple(solver.statistics.shape)}: fit and explain with images of one size"
            )
    check_reference(reference, values)
    reference = at_least_float32(reference)[index]
    return [
        Problem(part, own[index], select_carried(rest, len(own), index), values, reference, solver.objective)
        for solver, part, own, rest in zip(solvers, parts, features, carried, strict=True)
    ]
