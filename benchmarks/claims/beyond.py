"""Claim 6, beyond the paper: do maps follow the model, are they stable, do bits measure, is health empty."""

from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from benchmarks.claims.layers import seen
from benchmarks.claims.populations import single_findings, training_batches
from benchmarks.claims.study import LAYER, RULE, Claim, Measured, Sample, Study, Table, outputs, several
from benchmarks.pages import estimate
from lightning_chex.attribution import IBA, GradCAM
from lightning_chex.metrics import spearman
from lightning_chex.tasks import create_backbone

EXTENTS = (0.6, 0.8, 1.0, 1.2, 1.4)
GROWING = ("Mass", "Effusion", "Infiltration", "Nodule")
TOGETHER = "IBA"


def claims(study: Study) -> list[Claim]:
    """Several statements, each with its own verdict."""
    return [stable(study), growing(study), healthy(study)]


def stable(study: Study) -> Claim:
    """Agreement of maps over noise and training seeds, with those of an untrained network and of another patient."""
    noise = study.sample("stable", measure_noise)
    maps = [study.measured("maps", seed, measure_maps) for seed in study.seeds]
    training = Sample()
    for (a, first), (b, second) in combinations(enumerate(maps), 2):
        pairs = {name: agreement(*(map_of(own, name) for own in (first, second))) for name in ("IBA", "Grad-CAM")}
        training.add(a * len(maps) + b, first[0], **pairs)
    rows = [{"maps compared": name, "Spearman": estimate(noise.mean(name))} for name in noise.values]
    rows += [
        {"maps compared": f"{name}, another training seed", "Spearman": estimate(training.mean(name))}
        for name in training.values
    ]
    difference = noise.difference("IBA, another noise", "IBA, an untrained network")
    return Claim(
        "Maps follow the model",
        "Maps depend on what the network has learnt (Adebayo et al. 2018) and are repeatable (Arun et al. 2021).",
        noise.decided("IBA, another noise", "IBA, an untrained network"),
        f"A map agrees more with that of another noise seed than with that of an untrained network. {RULE}",
        f"Difference of the Spearman correlations: {estimate(difference, signed=True)}, by network "
        f"{several(noise.by_seed('IBA, another noise', 'IBA, an untrained network'), signed=True)}.",
        [Table("Agreement of maps over pixels", rows)],
    )


def growing(study: Study) -> Claim:
    """Bits of the same finding on the same patient in several sizes."""
    sample = study.sample("growing", measure_sizes)
    inside = "in the finding"
    outside = "outside"
    return Claim(
        "Bits grow with the finding",
        "The bits on a finding measure how much of it there is.",
        sample.decided(inside, outside),
        f"Over five sizes of the same finding on the same patient the bits within it follow its area more closely, by "
        f"rank correlation, than the bits outside it. {RULE}",
        f"Rank correlation {estimate(sample.mean(inside), signed=True)} within, "
        f"{estimate(sample.mean(outside), signed=True)} outside; difference by network "
        f"{several(sample.by_seed(inside, outside), signed=True)}.",
        [
            Table(
                "Rank correlation with the area",
                [{"what": n, "Spearman": estimate(sample.mean(n), signed=True)} for n in sample.values],
            )
        ],
        ["The sum over a larger region is larger for any map that is not empty there: see the bits per pixel too."],
    )


def healthy(study: Study) -> Claim:
    """Bits of the same class on the same patient with and without the finding."""
    sample = study.sample("healthy", measure_healthy)
    rows = [
        {
            "bits": name,
            "with the finding": estimate(sample.mean(a)),
            "without": estimate(sample.mean(b)),
            "difference": estimate(sample.difference(a, b), signed=True),
        }
        for name, a, b in (("of the map", "ill", "well"), ("in the place of the finding", "ill_inside", "well_inside"))
    ]
    return Claim(
        "What maps show on normal images",
        "A map of a class that is absent holds fewer bits than one of a class that is there.",
        sample.decided("ill", "well"),
        f"The total bits with the finding exceed those of the same patient without it, for the same class. {RULE}",
        f"Difference {estimate(sample.difference('ill', 'well'), signed=True)} bits, by network "
        f"{several(sample.by_seed('ill', 'well'), signed=True)}.",
        [Table("Bits on the same patients", rows)],
        ["The objective asks what would make the network say the class, so bits without the finding are no error."],
    )


def fresh(seed: int) -> nn.Module:
    """A network that has learnt nothing."""
    torch.manual_seed(1000 + seed)
    return create_backbone("densenet121", 8, pretrained=False).eval()


def measure_noise(study: Study, seed: int) -> Measured:
    """Agreement of IBA's maps with those of another noise, an untrained network and another patient."""
    network = study.network("classifier", seed)
    untrained = fresh(seed)
    cases = single_findings(study.cases)
    iba, again = (study.iba("classifier", seed, seed=own) for own in (0, 1))
    other = IBA(LAYER, batch_size=8).fit(untrained, training_batches("pathologies", seed))
    own = iba.attribute(network, cases.images, cases.target)
    pairs = {
        "IBA, another noise": again.attribute(network, cases.images, cases.target),
        "IBA, an untrained network": other.attribute(untrained, cases.images, cases.target),
        "IBA, another patient": own.roll(1, 0),
    }
    return cases.patients, {name: agreement(own, found) for name, found in pairs.items()}


def measure_maps(study: Study, seed: int) -> Measured:
    """Maps of one network in cells of 4 x 4 pixels, a value a cell under each name; all networks see the same cases."""
    network = study.network("classifier", seed)
    cases = single_findings(study.cases)
    values = {}
    for name, method in {"IBA": study.iba("classifier", seed), "Grad-CAM": GradCAM(LAYER)}.items():
        cells = avg_pool2d(method.attribute(network, cases.images, cases.target).float(), 4).flatten(1)
        values |= {f"{name}|{i}": own for i, own in enumerate(cells.T)}
    return cases.patients, values


def map_of(found: Measured, name: str) -> Tensor:
    """The maps that `measure_maps` has kept, (N, 1, cells)."""
    return torch.stack([own for key, own in found[1].items() if key.split("|")[0] == name], 1)[:, None]


def measure_sizes(study: Study, seed: int) -> Measured:
    """Rank correlation, over sizes of the same finding, of its area with bits and probability."""
    network = study.network("classifier", seed)
    iba = study.iba("classifier", seed)
    series: dict[str, list[Tensor]] = {}
    for extent in EXTENTS:
        cases = single_findings(study.cases, GROWING, extent=extent)
        maps = iba.attribute(network, cases.images, cases.target)
        truth = cases.regions.any(1)
        inside = (maps * truth).sum((1, 2))
        found = {
            "area": cases.area,
            "in the finding": inside,
            "outside": (maps * ~truth).sum((1, 2)),
            "bits per pixel in the finding": inside / cases.area.clamp(min=1),
            "probability": outputs(network, cases.images).sigmoid()[torch.arange(len(cases)), cases.target],
        }
        for name, own in found.items():
            series.setdefault(name, []).append(own.double())
    joined = {name: torch.stack(own, 1)[:, None] for name, own in series.items()}
    area = joined.pop("area")
    return cases.patients, {name: spearman(area, own) for name, own in joined.items()}


def measure_healthy(study: Study, seed: int) -> Measured:
    """Bits of a map with and without the finding, in all and in its place."""
    network = study.network("classifier", seed)
    iba = study.iba("classifier", seed)
    cases = seen(network, single_findings(study.cases))
    values = {}
    truth = cases.regions.any(1)
    for name, images in (("ill", cases.images), ("well", cases.healthy)):
        maps = iba.attribute(network, images, cases.target)
        values |= {name: maps.sum((1, 2)), f"{name}_inside": (maps * truth).sum((1, 2))}
    return cases.patients, values


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """Spearman correlation over pixels, (N,)."""
    return spearman(one.double(), other.double())
