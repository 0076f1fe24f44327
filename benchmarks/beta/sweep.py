"""The sweeps: maps at every beta, by the authors' optimiser and by this package's, and what they are worth."""

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
LAYER = "features.denseblock3"

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "authors'": {"lr": 1.0, "lr_schedule": "constant", "adam_betas": (0.9, 0.999), "initial_alpha": 5.0},
    "default": {},
}
"""The authors' settings of the optimiser, and this package's own."""

AUTHORS = {"IBA": 10.0, "Inverse": 30.0}
"""The authors' betas, for the mean of the cross entropy over all outputs."""

OBJECTIVES = (
    ("IBA", "deviation"), ("IBA", "squared_error"), ("IBA", "maximize_score"), ("Inverse", "deviation"),
)  # fmt: skip


def made(method: str, statistics: FeatureStatistics, optimizer: str, **settings: Any) -> IBA:
    attributor = METHODS[method](**{"layer": LAYER, **OPTIMIZERS[optimizer], **settings})
    attributor.statistics = statistics
    return attributor


def explained(
    method: str, statistics: FeatureStatistics, model: nn.Module, cases: Cases, **settings: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Maps (N, H, W), and what their runs tell: loss, the whole of what is minimised, and how far both still move."""
    attributor = made(method, statistics, **settings)
    report = attributor.report(model, cases.images, cases.target)
    sign = -1 if method == "Inverse" else 1
    nats_per_neuron = report.information * torch.log(torch.tensor(2.0)) / statistics.mean.numel()
    whole = sign * report.objective + attributor.beta * nats_per_neuron
    now, before = whole[:, -1], whole[:, -1 - max(1, attributor.steps // 5)]
    return report.saliency, {
        "loss": report.objective[:, -1],
        "whole": now,
        "map_change": report.convergence,
        "objective_change": (now - before).abs() / now.abs(),
    }


def row(maps: Tensor, values: dict[str, Tensor], cases: Cases, start: float, **setting: Any) -> Row:
    print({**setting, "bits": round(float(maps.sum((1, 2)).mean()), 2), "s": round(time.time() - start)}, flush=True)
    kept = {name: [float(f"{value:.4g}") for value in column.tolist()] for name, column in values.items()}
    return {**setting, "patients": cases.patients, "values": kept}


def classes(
    model: nn.Module, statistics: FeatureStatistics, cases: Cases, judge: Callable[[Tensor, Cases], dict[str, Tensor]],
    betas: Sequence[float], plan: Sequence[tuple[str, int]], curves: int,
) -> Iterator[Row]:  # fmt: skip
    """The objective of the explained class at every beta, beside the authors' at theirs; IBA against Inverse IBA."""
    start = time.time()

    def judged(maps: Tensor) -> dict[str, Tensor]:
        worth = judge(maps, cases)
        return worth | (measures.perturbed(model, maps, cases, curves) if curves else {})

    reference = {}
    for name, beta in AUTHORS.items():
        # read before the tenth update, so nine steps
        setting = {"optimizer": "authors'", "objective": "one_hot_binary_cross_entropy", "beta": beta, "steps": 9}
        maps, figures = explained(name, statistics, model, cases, **setting)
        reference[name] = maps
        yield row(maps, {**judged(maps), **figures}, cases, start, method=name, **setting)
    for optimizer, steps in plan:
        for beta in betas:
            setting = {"optimizer": optimizer, "objective": "binary_cross_entropy", "beta": beta, "steps": steps}
            found = {name: explained(name, statistics, model, cases, **setting) for name in METHODS}
            between = {"to_other": spearman(*(maps for maps, _ in found.values()))}
            for name, (maps, figures) in found.items():
                worth = {**judged(maps), **figures, **between, "to_authors": spearman(maps, reference[name])}
                yield row(maps, worth, cases, start, method=name, **setting)


def scores(
    model: nn.Module, statistics: FeatureStatistics, cases: Cases, betas: Sequence[float],
    plan: Sequence[tuple[str, int]], curves: int,
) -> Iterator[Row]:  # fmt: skip
    """The regression objectives at every beta; the score's unit is a point of 0 to 18."""
    start = time.time()
    for method, objective in OBJECTIVES:
        for optimizer, steps in plan:
            for beta in betas:
                setting = {"optimizer": optimizer, "objective": objective, "beta": beta, "steps": steps}
                maps, figures = explained(method, statistics, model, cases, **setting)
                worth = {**measures.of_scores(maps, cases), **figures}
                if curves:
                    worth |= measures.perturbed(model, maps, cases, curves)
                yield row(maps, worth, cases, start, method=method, **setting)


def layers(
    model: nn.Module, statistics: dict[str, FeatureStatistics], cases: Cases, betas: Sequence[float],
    plan: Sequence[tuple[str, int]],
) -> Iterator[Row]:  # fmt: skip
    """Each layer at every beta, then the gated combination (`MultiLayerIBA`) of each first with each last two."""
    start = time.time()
    for optimizer, steps in plan:
        setting = {"optimizer": optimizer, "steps": steps}
        maps: dict[tuple[str, float], Tensor] = {}
        for layer, own in statistics.items():
            for beta in betas:
                found, figures = explained("IBA", own, model, cases, layer=layer, beta=beta, **setting)
                maps[layer, beta] = found
                worth = {**measures.of_findings(found, cases), **figures}
                yield row(found, worth, cases, start, layer=layer, beta=beta, **setting)
        finest, *coarser = statistics
        for first in betas:
            for gate in betas:
                marked = torch.stack([binarize(maps[layer, gate], "rms", 0.006 * 224) for layer in coarser]).all(0)
                combined = maps[finest, first] * marked
                worth = {**measures.of_findings(combined, cases), "kept": marked.flatten(1).float().mean(1)}
                yield row(combined, worth, cases, start, layer="combined", beta=first, gate=gate, **setting)
