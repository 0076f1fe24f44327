"""How many steps a map needs, and which figure of the run itself tells that they were too few."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.beta import measures
from benchmarks.beta.cases import Cases
from benchmarks.beta.sweep import Row, made, row
from lightning_chex.attribution.bottleneck import Bottleneck
from lightning_chex.attribution.information import bits_per_cell, bits_per_pixel
from lightning_chex.attribution.optimization import Problem, optimize
from lightning_chex.attribution.statistics import FeatureStatistics
from lightning_chex.metrics import spearman

STEPS = (10, 15, 20, 30, 50, 100)
LONG = 300


def early(steps: int) -> int:
    """The step after which the last fifth begins."""
    return steps - max(1, steps // 5)


def course(
    method: str, statistics: FeatureStatistics, model: nn.Module, cases: Cases, moments: Sequence[int], **settings: Any
) -> tuple[dict[int, Tensor], Tensor]:
    """Bits per cell (N, h, w) after so many steps of one run, and the whole objective before every step, (N, steps)."""
    attributor = made(method, statistics, steps=max(moments), **settings)
    kept: dict[int, list[Tensor]] = {moment: [] for moment in moments}
    whole: list[Tensor] = []

    def solve(problem: Problem, watched: bool = False) -> tuple[Bottleneck, list[Any]]:
        bottleneck = Bottleneck(
            problem.features, statistics, attributor.blur_sigma, attributor.initial_alpha, attributor.lr
        )
        generator = torch.Generator().manual_seed(attributor.seed)
        values: list[Tensor] = []

        def watch(objective: Tensor) -> None:
            capacity = bottleneck.capacity()
            if len(values) in kept:
                kept[len(values)].append(bits_per_cell(capacity))
            values.append(objective + attributor.beta * capacity.flatten(1).mean(1))

        optimize(
            problem, bottleneck, attributor.noise_share, attributor.beta, attributor.steps, attributor.noise_samples,
            generator, watch,
        )  # fmt: skip
        kept[attributor.steps].append(bits_per_cell(bottleneck.capacity()))
        whole.append(torch.stack(values, 1))
        return bottleneck, []

    attributor.solve = solve  # type: ignore[method-assign]
    attributor.attribute(model, cases.images, None if cases.target.is_floating_point() else cases.target)
    return {moment: torch.cat(parts) for moment, parts in kept.items()}, torch.cat(whole)


def convergence(
    method: str, statistics: FeatureStatistics, model: nn.Module, cases: Cases, **settings: Any
) -> Iterator[Row]:
    """Maps of one run after few steps against the same run's after 300, and two figures of the run for each."""
    start = time.time()
    moments = sorted({*STEPS, *map(early, STEPS), LONG, early(LONG)})
    cells, objective = course(method, statistics, model, cases, moments, **settings)
    some = cases.first(max(1, len(cases) // 3))
    again, _ = course(method, statistics, model, some, [LONG], seed=1, **settings)
    short = made(method, statistics, steps=STEPS[0], **settings)
    targets = None if cases.target.is_floating_point() else cases.target
    if not torch.allclose(short.report(model, cases.images, targets).capacity, cells[STEPS[0]], rtol=1e-3, atol=1e-5):
        raise RuntimeError("the course of a long run is not that of a short one")
    size = (cases.images.shape[-2], cases.images.shape[-1])
    last = bits_per_pixel(cells[LONG], size)
    for steps in (*STEPS, LONG):
        maps = bits_per_pixel(cells[steps], size)
        before = early(steps)
        values = {
            "bits": maps.sum((1, 2)),
            "to_long": spearman(maps, last),
            "map_change": (cells[steps] - cells[before]).abs().sum((1, 2)) / cells[steps].sum((1, 2)),
            "objective_change": (objective[:, steps - 1] - objective[:, before - 1]).abs()
            / objective[:, steps - 1].abs(),
        }
        if steps == LONG:
            own = spearman(last[: len(some)], bits_per_pixel(again[LONG], size))  # another seed of the noise
            values["to_long"] = torch.cat([own, own.new_full((len(cases) - len(some),), torch.nan)])
        if cases.regions.shape[1] == 1:
            values |= {name: value for name, value in measures.of_findings(maps, cases).items() if name != "bits"}
        yield row(maps, values, cases, start, method=method, steps=steps, **settings)
