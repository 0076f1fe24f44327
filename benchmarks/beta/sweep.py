"""The sweeps: maps at every beta, and what they are worth."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.beta import measures
from benchmarks.beta.cases import Cases
from lightning_chex.attribution import IBA, InverseIBA
from lightning_chex.attribution.statistics import FeatureStatistics
from lightning_chex.attribution.thresholds import binarize
from lightning_chex.metrics import spearman

Row = dict[str, Any]
METHODS: dict[str, type[IBA]] = {"IBA": IBA, "Inverse": InverseIBA}
AUTHORS = {"IBA": 10.0, "Inverse": 30.0}
"""The authors' betas, for the mean of the cross entropy over all outputs."""

LAYER = "features.denseblock3"
OBJECTIVES = (
    ("IBA", "deviation"), ("IBA", "squared_error"), ("IBA", "maximize_score"), ("Inverse", "deviation"),
)  # fmt: skip


def made(method: str, statistics: FeatureStatistics, **settings: Any) -> IBA:
    attributor = METHODS[method](**{"layer": LAYER, **settings})
    attributor.statistics = statistics
    return attributor


def row(maps: Tensor, values: dict[str, Tensor], cases: Cases, start: float, **setting: Any) -> Row:
    print({**setting, "bits": round(float(maps.sum((1, 2)).mean()), 2), "s": round(time.time() - start)}, flush=True)
    kept = {name: [float(f"{value:.4g}") for value in column.tolist()] for name, column in values.items()}
    return {**setting, "patients": cases.patients, "values": kept}


def classes(
    model: nn.Module, statistics: FeatureStatistics, cases: Cases, judge: Callable[[Tensor, Cases], dict[str, Tensor]],
    betas: Sequence[float], steps: int, curves: int,
) -> Iterator[Row]:  # fmt: skip
    """The objective of the explained class at every beta, beside the authors' at theirs; IBA against Inverse IBA."""
    start = time.time()

    def explained(method: str, **settings: Any) -> Tensor:
        return made(method, statistics, steps=steps, **settings).attribute(model, cases.images, cases.target)

    def judged(maps: Tensor) -> dict[str, Tensor]:
        worth = judge(maps, cases)
        return worth | (measures.perturbed(model, maps, cases, curves) if curves else {})

    reference = {
        name: explained(name, objective="one_hot_binary_cross_entropy", beta=beta) for name, beta in AUTHORS.items()
    }
    for name, maps in reference.items():
        yield row(
            maps, judged(maps), cases, start, method=name, objective="one-hot mean", beta=AUTHORS[name], steps=steps
        )
    for beta in betas:
        pair = {name: explained(name, beta=beta) for name in METHODS}
        between = {"to_other": spearman(pair["IBA"], pair["Inverse"])}
        for name, maps in pair.items():
            worth = {**judged(maps), **between, "to_authors": spearman(maps, reference[name])}
            yield row(maps, worth, cases, start, method=name, objective="class", beta=beta, steps=steps)


def scores(
    model: nn.Module, statistics: FeatureStatistics, cases: Cases, betas: Sequence[float], steps: int, curves: int
) -> Iterator[Row]:
    """The regression objectives at every beta; the score's unit is a point of 0 to 18."""
    start = time.time()
    for method, objective in OBJECTIVES:
        for beta in betas:
            attributor = made(method, statistics, steps=steps, objective=objective, beta=beta)
            maps = attributor.attribute(model, cases.images, cases.target)
            worth = measures.of_scores(maps, cases)
            if curves:
                worth |= measures.perturbed(model, maps, cases, curves)
            yield row(maps, worth, cases, start, method=method, objective=objective, beta=beta, steps=steps)


def layers(
    model: nn.Module, statistics: dict[str, FeatureStatistics], cases: Cases, betas: Sequence[float], steps: int
) -> Iterator[Row]:
    """Each layer at every beta, then the gated combination (`MultiLayerIBA`) of each first with each last two."""
    start = time.time()
    maps: dict[tuple[str, float], Tensor] = {}
    for layer, own in statistics.items():
        for beta in betas:
            found = made("IBA", own, layer=layer, beta=beta, steps=steps).attribute(model, cases.images, cases.target)
            maps[layer, beta] = found
            yield row(found, measures.of_findings(found, cases), cases, start, layer=layer, beta=beta, steps=steps)
    finest, *coarser = statistics
    for first in betas:
        for gate in betas:
            marked = torch.stack([binarize(maps[layer, gate], "rms", 0.006 * 224) for layer in coarser]).all(0)
            combined = maps[finest, first] * marked
            worth = {**measures.of_findings(combined, cases), "kept": marked.flatten(1).float().mean(1)}
            yield row(combined, worth, cases, start, layer="combined", beta=first, gate=gate, steps=steps)
