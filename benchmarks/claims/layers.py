"""Claim 2: Multi-layer IBA is finer than a single layer (section 2.3, Eq. 5)."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from benchmarks.claims.populations import Cases, single_findings
from benchmarks.claims.study import (
    LAYER,
    LAYERS,
    RULE,
    Claim,
    Measured,
    Sample,
    Study,
    Table,
    marked,
    outputs,
    several,
)
from benchmarks.pages import estimate
from lightning_chex.attribution import Attributor, InputIBA, MultiLayerIBA, RandomMap, SharedIBA
from lightning_chex.metrics import intersection_over_union, pointing_game

FINEST = "IBA at denseblock1"
SIZES = ("small", "middle", "large")
SHAPES = ("round", "longer than wide", "longest")
GATED = "Multi-layer IBA, gated"
PRINTED = "Multi-layer IBA, intersection (Eq. 5 as printed)"


def claim(study: Study) -> Claim:
    """IoU, pointing and distance of outlines of all methods, as many pixels marked as the finding has."""
    sample = study.sample("layers", measure)
    names = list(dict.fromkeys(key.split("|")[1] for key in sample.values if key.startswith("iou|")))
    rows = [
        {
            "method": name,
            "IoU": estimate(sample.mean(f"iou|{name}")),
            "less denseblock1": estimate(sample.difference(f"iou|{name}", f"iou|{FINEST}"), signed=True),
            "by network": several(sample.by_seed(f"iou|{name}", f"iou|{FINEST}"), signed=True),
            "pointing": estimate(sample.mean(f"pointing|{name}")),
            "outline, px": estimate(sample.mean(f"outline|{name}")),
            "n": sample.mean(f"iou|{name}").n,
        }
        for name in names
    ]
    difference = sample.difference(f"iou|{GATED}", f"iou|{FINEST}")
    by_seed = sample.by_seed(f"iou|{GATED}", f"iou|{FINEST}")
    own = f"{PRINTED}, at its own area"
    other = f"{FINEST}, at the area of the intersection"
    printed = sample.difference(f"iou|{own}", f"iou|{other}")
    return Claim(
        "Finer maps from several layers",
        "Combining the maps of several layers gives finer maps than a single layer (section 2.3, Eq. 5).",
        sample.decided(f"iou|{GATED}", f"iou|{FINEST}"),
        f"The IoU of gated Multi-layer IBA exceeds that of denseblock1 alone, its finest layer, with as many pixels "
        f"marked. {RULE}",
        f"Gated Multi-layer less denseblock1: {estimate(difference, signed=True)}, by network "
        f"{several(by_seed, signed=True)}; Eq. 5 as printed less denseblock1, at the area of the intersection: "
        f"{estimate(printed, signed=True)}.",
        [
            Table("As many pixels marked as the finding has", rows),
            Table("IoU by size of the finding", [of_third(sample, "size", own, names) for own in SIZES]),
            Table("IoU by length over width", [of_third(sample, "shape", own, names) for own in SHAPES]),
        ],
        [
            "Images of 128 px; at 224 px, where the cells of denseblock1 are finer, nothing was tried.",
            "SharedIBA and InputIBA follow CoIBA (2025) and InputIBA (2021) in their idea, not to the letter; see "
            "their docstrings.",
        ],
    )


def measure(study: Study, seed: int) -> Measured:
    """Overlap of the maps of every method with the findings that one network recognises."""
    network = study.network("classifier", seed)
    cases = seen(network, single_findings(study.cases))
    truth = cases.regions.any(1)
    values = {f"size|{name}": own.float() for name, own in thirds(cases.area.float(), SIZES).items()}
    values |= {f"shape|{name}": own.float() for name, own in thirds(elongation(truth), SHAPES).items()}
    for name, method in methods(study, seed).items():
        maps = method.attribute(network, cases.images, cases.target)
        values |= compared(maps, truth, cases.area, name)
        if name == PRINTED:  # a map of 0 and 1 has an area of its own
            own = maps.flatten(1).sum(1)
            finest = study.iba("classifier", seed, LAYERS[0]).attribute(network, cases.images, cases.target)
            values |= compared(maps, truth, own, f"{PRINTED}, at its own area")
            values |= compared(finest, truth, own, f"{FINEST}, at the area of the intersection")
    return cases.patients, values


def methods(study: Study, seed: int) -> dict[str, Attributor]:
    """Each layer alone, both combinations, and what came after the paper."""
    found: dict[str, Attributor] = {
        f"IBA at {layer.split('.')[1]}": study.iba("classifier", seed, layer) for layer in LAYERS
    }
    found[GATED] = MultiLayerIBA(LAYERS, batch_size=8)
    found[PRINTED] = MultiLayerIBA(LAYERS, combine="intersection", batch_size=8)
    found["SharedIBA: one damping ratio for all layers"] = SharedIBA(LAYERS, batch_size=8)
    for method in found.values():
        for member in method.members:
            member.statistics = study.statistics("classifier", seed, member.layer)
    found["InputIBA: a bottleneck at the pixels"] = study.fitted(InputIBA(LAYER), "classifier", seed)
    found["random map"] = RandomMap()
    return found


def seen(network: torch.nn.Module, cases: Cases) -> Cases:
    """The cases that the network recognises (probability .5 or more)."""
    probability = outputs(network, cases.images).sigmoid()[torch.arange(len(cases)), cases.target]
    return cases.chosen((probability >= 0.5) & (cases.area > 0))


def compared(maps: Tensor, truth: Tensor, area: Tensor, name: str) -> dict[str, Tensor]:
    """IoU, pointing game and distance of the outlines of the ``area`` (N,) strongest pixels of each map (N, H, W).

    ``truth``, bool (N, H, W), marks the findings.
    """
    where = marked(maps, area)
    iou = intersection_over_union(where, truth)
    outline = torch.tensor([distance(own.numpy(), true.numpy()) for own, true in zip(where, truth, strict=True)])
    some = area > 0
    return {
        f"iou|{name}": torch.where(some, iou, 0),
        f"pointing|{name}": pointing_game(maps, truth),
        f"outline|{name}": outline,
    }


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of the pixels on the outline of ``other`` from that of ``one``, in pixels; NaN if one is empty."""
    if not one.any() or not other.any():
        return float("nan")
    edges = [region & ~ndimage.binary_erosion(region) for region in (one, other)]
    return float(ndimage.distance_transform_edt(~edges[0])[edges[1]].mean())


def thirds(values: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Which third of all values each one (N,) belongs to, bool (N,) a name."""
    first, second = values.quantile(torch.tensor([1 / 3, 2 / 3]).to(values))
    return dict(zip(names, (values <= first, (values > first) & (values <= second), values > second), strict=True))


def elongation(regions: Tensor) -> Tensor:
    """Length over width of regions, bool (N, H, W): root of the ratio of the variances along both main axes, (N,)."""
    found = []
    for own in regions:
        places = own.nonzero().double()
        variances = torch.linalg.eigvalsh(torch.cov(places.T, correction=0) + torch.eye(2) / 12)
        found.append((variances[1] / variances[0]).sqrt())
    return torch.stack(found)


def of_third(sample: Sample, what: str, third: str, names: Sequence[str]) -> dict[str, str | float]:
    """IoU of every method on the findings of one third by size or shape."""
    own = sample.where([value == 1 for value in sample.values[f"{what}|{third}"]])
    shown_names = [name for name in names if "area" not in name]
    return {"finding": third, "n": len(own.patients)} | {n: f"{own.mean(f'iou|{n}').value:.3f}" for n in shown_names}
