"""The sweeps: maps at every beta, by the authors' optimiser and by this package's, and what they are worth."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.beta import measures
from benchmarks.beta.cases import Cases
from lightning_chex.attribution import IBA, FeatureStatistics, InverseIBA
from lightning_chex.attribution.bottleneck.multi_layer import binarize
from lightning_chex.metrics import spearman

Row = dict[str, Any]
METHODS: dict[str, type[IBA]] = {"IBA": IBA, "Inverse": InverseIBA}
SIGNS = {"IBA": 1, "Inverse": -1}
"""Of the loss, in what is minimised."""

LAYER = "features.denseblock3"

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "authors'": {"lr": 1.0, "lr_schedule": "constant", "adam_betas": (0.9, 0.999), "initial_alpha": 5.0},
    "default": {},
}
"""The authors' settings of the optimiser, and this package's own."""

AUTHORS = {"IBA": 10.0, "Inverse": 30.0}
"""The authors' betas, for the mean of the cross entropy over all outputs."""

NOTHING_BUT_INFORMATION = 1e6
"""A beta beside which the objective plays no part: nothing passes (IBA), or nothing is selected (Inverse IBA). Its map
is a control that knows of no class, its loss that of the trivial mask."""

OBJECTIVES = (
    ("IBA", "deviation"),
    ("IBA", "squared_error"),
    ("IBA", "maximize_score"),
    ("Inverse", "deviation"),
)


def made(method: str, statistics: FeatureStatistics, optimizer: str, **settings: Any) -> IBA:
    attributor = METHODS[method](**{"layer": LAYER, **OPTIMIZERS[optimizer], **settings})
    attributor.statistics = statistics
    return attributor


def explained(
    method: str, statistics: FeatureStatistics, model: nn.Module, cases: Cases, **settings: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Maps (N, H, W), and what their runs tell: loss, the whole of what is minimised, and how far they still move."""
    attributor = made(method, statistics, **settings)
    report = attributor.report(model, cases.images, cases.target)
    nats_per_neuron = report.information * math.log(2) / statistics.mean.numel()
    whole = SIGNS[method] * report.objective + attributor.beta * nats_per_neuron
    now = whole[:, -1]
    half = attributor.settings.steps // 2
    return report.saliency, {
        "loss": report.objective[:, -1],
        "whole": now,
        "map_change": report.convergence,
        "objective_change": (now - whole[:, half]).abs() / now.abs(),
        "bits_change": (report.total_bits - report.information[:, half]).abs() / report.total_bits,
    }


def without_objective(
    method: str, statistics: FeatureStatistics, model: nn.Module, cases: Cases, **settings: Any
) -> tuple[Tensor, Tensor]:
    """The control's maps, and the whole of what is minimised at the trivial mask, which takes no information."""
    maps, figures = explained(method, statistics, model, cases, **{**settings, "beta": NOTHING_BUT_INFORMATION})
    return maps, SIGNS[method] * figures["loss"]


def row(maps: Tensor, values: dict[str, Tensor], cases: Cases, start: float, **setting: Any) -> Row:
    print({**setting, "bits": round(float(maps.sum((1, 2)).mean()), 2), "s": round(time.time() - start)}, flush=True)
    kept = {name: [float(f"{value:.4g}") for value in column.tolist()] for name, column in values.items()}
    return {**setting, "patients": cases.patients, "values": kept}


def classes(
    model: nn.Module,
    statistics: FeatureStatistics,
    cases: Cases,
    judge: Callable[[Tensor, Cases], dict[str, Tensor]],
    betas: Sequence[float],
    plan: Sequence[tuple[str, int]],
    curves: int,
) -> Iterator[Row]:
    """The objective of the explained class at every beta, beside the authors' at theirs; IBA against Inverse IBA."""
    start = time.time()

    def judged(method: str, **setting: Any) -> tuple[Tensor, dict[str, Tensor]]:
        maps, figures = explained(method, statistics, model, cases, **setting)
        control, trivial = without_objective(method, statistics, model, cases, **setting)
        worth = {**judge(maps, cases), **figures, "to_control": spearman(maps, control)}
        worth["collapsed"] = (figures["whole"] >= trivial).float()
        return maps, worth | (measures.perturbed(model, maps, cases, curves) if curves else {})

    reference = {}
    for name, beta in AUTHORS.items():
        # read before the tenth update, so nine steps
        setting = {"optimizer": "authors'", "objective": "one_hot_binary_cross_entropy", "beta": beta, "steps": 9}
        reference[name], worth = judged(name, **setting)
        yield row(reference[name], worth, cases, start, method=name, **setting)
    for optimizer, steps in plan:
        for beta in (*betas, NOTHING_BUT_INFORMATION):
            setting = {"optimizer": optimizer, "objective": "binary_cross_entropy", "beta": beta, "steps": steps}
            found = {name: judged(name, **setting) for name in METHODS}
            between = {"to_other": spearman(*(maps for maps, _ in found.values()))}
            for name, (maps, worth) in found.items():
                agreement = {**between, "to_authors": spearman(maps, reference[name])}
                yield row(maps, worth | agreement, cases, start, method=name, **setting)


def scores(
    model: nn.Module,
    statistics: FeatureStatistics,
    cases: Cases,
    betas: Sequence[float],
    plan: Sequence[tuple[str, int]],
    curves: int,
) -> Iterator[Row]:
    """The regression objectives at every beta; the score's unit is a point of 0 to 18."""
    start = time.time()
    for method, objective in OBJECTIVES:
        for optimizer, steps in plan:
            for beta in betas:
                setting = {"optimizer": optimizer, "objective": objective, "beta": beta, "steps": steps}
                maps, figures = explained(method, statistics, model, cases, **setting)
                control, trivial = without_objective(method, statistics, model, cases, **setting)
                worth = {**measures.of_scores(maps, cases), **figures, "to_control": spearman(maps, control)}
                worth["collapsed"] = (figures["whole"] >= trivial).float()
                if curves:
                    worth |= measures.perturbed(model, maps, cases, curves)
                yield row(maps, worth, cases, start, method=method, **setting)


def layers(
    model: nn.Module,
    statistics: dict[str, FeatureStatistics],
    cases: Cases,
    betas: Sequence[float],
    plan: Sequence[tuple[str, int]],
) -> Iterator[Row]:
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
