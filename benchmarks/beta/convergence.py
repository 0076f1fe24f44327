"""How many steps a map needs, and which figure of the run itself tells that they were too few."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from benchmarks.beta import measures
from benchmarks.beta.cases import Cases
from benchmarks.beta.sweep import Row, explained, row, without_objective
from lightning_chex.attribution import FeatureStatistics
from lightning_chex.metrics import spearman


def convergence(
    method: str, statistics: FeatureStatistics, model: nn.Module, cases: Cases, steps: Sequence[int], **setting: Any
) -> Iterator[Row]:
    """Maps after few steps against those after the most steps, and figures of each run itself.

    The row of the most steps compares them with those of another seed of the noise.
    """
    start = time.time()
    *few, most = sorted(steps)
    last, figures = explained(method, statistics, model, cases, steps=most, **setting)
    again, _ = explained(method, statistics, model, cases, steps=most, seed=1, **setting)
    _, trivial = without_objective(method, statistics, model, cases, steps=few[-1], **setting)
    runs = [(most, again, figures)]
    runs += [(number, *explained(method, statistics, model, cases, steps=number, **setting)) for number in few]
    for number, maps, own in sorted(runs, key=lambda run: run[0]):
        values = {**own, "bits": maps.sum((1, 2)), "to_long": spearman(maps, last)}
        values["collapsed"] = (own["whole"] >= trivial).float()
        if not cases.target.is_floating_point():
            values |= measures.of_findings(maps, cases)
        yield row(maps, values, cases, start, method=method, steps=number, **setting)
