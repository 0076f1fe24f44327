"""Claim 6, beyond the paper: do maps follow the model, are they stable, do bits measure, is health empty."""

import torch
from torch import Tensor, nn

from benchmarks.claims.layers import seen
from benchmarks.claims.populations import single_findings, training_batches
from benchmarks.claims.study import LAYER, RULE, Claim, Sample, Study, Table, outputs, several, shown
from lightning_chex.attribution import IBA, Attributor, GradCAM
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
    noise, training = Sample(), Sample()
    cases = single_findings(study.cases)
    maps: dict[str, list[Tensor]] = {}
    for seed in study.seeds:
        network = study.network("classifier", seed)
        iba = study.iba("classifier", seed)
        untrained = fresh(seed)
        of_untrained = IBA(LAYER, batch_size=8)
        of_untrained.fit(untrained, training_batches("pathologies", seed))
        own = iba.attribute(network, cases.images, cases.target)
        again = study.iba("classifier", seed)
        again.seed = 1
        pairs = {
            "IBA, another noise": again.attribute(network, cases.images, cases.target),
            "IBA, an untrained network": of_untrained.attribute(untrained, cases.images, cases.target),
            "IBA, another patient": own.roll(1, 0),
        }
        noise.add(seed, cases.patients, **{name: agreement(own, other) for name, other in pairs.items()})
        maps.setdefault(TOGETHER, []).append(own)
        cam: Attributor = GradCAM(LAYER)
        maps.setdefault("Grad-CAM", []).append(cam.attribute(network, cases.images, cases.target))
    rows = [{"maps compared": name, "Spearman": shown(noise.mean(name))} for name in noise.values]
    for method, found in maps.items():
        for a in range(len(found)):
            for b in range(a + 1, len(found)):
                training.add(a * 10 + b, cases.patients, **{method: agreement(found[a], found[b])})
        rows.append({"maps compared": f"{method}, another training seed", "Spearman": shown(training.mean(method))})
    difference = noise.difference("IBA, another noise", "IBA, an untrained network")
    return Claim(
        "Maps follow the model",
        "Maps depend on what the network has learnt (Adebayo et al. 2018) and are repeatable (Arun et al. 2021).",
        noise.decided("IBA, another noise", "IBA, an untrained network"),
        f"A map agrees more with that of another noise seed than with that of an untrained network. {RULE}",
        f"Difference of the Spearman correlations: {shown(difference, signed=True)}, by network "
        f"{several(noise.by_seed('IBA, another noise', 'IBA, an untrained network'), signed=True)}.",
        [Table("Agreement of maps over pixels", rows)],
    )


def growing(study: Study) -> Claim:
    """Bits of the same finding on the same patient in several sizes."""
    sample = Sample()
    for seed in study.seeds:
        network, iba = study.network("classifier", seed), study.iba("classifier", seed)
        areas, bits, outside, probabilities = [], [], [], []
        for extent in EXTENTS:
            cases = single_findings(study.cases, GROWING, extent=extent)
            maps = iba.attribute(network, cases.images, cases.target)
            truth = cases.regions.any(1)
            areas.append(cases.area.double())
            bits.append((maps * truth).sum((1, 2)))
            outside.append((maps * ~truth).sum((1, 2)))
            rows = torch.arange(len(cases))
            probabilities.append(outputs(network, cases.images).sigmoid()[rows, cases.target])
        area = torch.stack(areas, 1)
        values = {
            "in the finding": spearman(area[:, None], torch.stack(bits, 1).double()[:, None]),
            "outside": spearman(area[:, None], torch.stack(outside, 1).double()[:, None]),
            "probability": spearman(area[:, None], torch.stack(probabilities, 1).double()[:, None]),
            "zero": torch.zeros(len(area)),
        }
        sample.add(seed, cases.patients, **values)
    names = [name for name in sample.values if name != "zero"]
    return Claim(
        "Bits grow with the finding",
        "The bits on a finding measure how much of it there is.",
        sample.decided("in the finding", "zero"),
        f"Over five sizes of the same finding on the same patient the rank correlation of the bits within it with its "
        f"area is above 0. {RULE}",
        f"Rank correlation {shown(sample.mean('in the finding'), signed=True)}, by network "
        f"{several(sample.by_seed('in the finding'), signed=True)}.",
        [
            Table(
                "Rank correlation with the area",
                [{"what": n, "Spearman": shown(sample.mean(n), signed=True)} for n in names],
            )
        ],
        ["The sum over a larger region is larger for any map that is not empty there: see the bits outside beside it."],
    )


def healthy(study: Study) -> Claim:
    """Bits of the same class on the same patient with and without the finding."""
    sample = Sample()
    for seed in study.seeds:
        network, iba = study.network("classifier", seed), study.iba("classifier", seed)
        cases = seen(network, single_findings(study.cases))
        maps = [iba.attribute(network, images, cases.target) for images in (cases.images, cases.healthy)]
        truth = cases.regions.any(1)
        total = [own.sum((1, 2)) for own in maps]
        inside = [(own * truth).sum((1, 2)) for own in maps]
        sample.add(
            seed, cases.patients, ill=total[0], well=total[1], ill_inside=inside[0], well_inside=inside[1],
        )  # fmt: skip
    rows = [
        {"bits": name, "with the finding": shown(sample.mean(a)), "without": shown(sample.mean(b)),
         "difference": shown(sample.difference(a, b), signed=True)}
        for name, a, b in (("of the map", "ill", "well"), ("in the place of the finding", "ill_inside", "well_inside"))
    ]  # fmt: skip
    return Claim(
        "What maps show on normal images",
        "A map of a class that is absent holds fewer bits than one of a class that is there.",
        sample.decided("ill", "well"),
        f"The total bits with the finding exceed those of the same patient without it, for the same class. {RULE}",
        f"Difference {shown(sample.difference('ill', 'well'), signed=True)} bits, by network "
        f"{several(sample.by_seed('ill', 'well'), signed=True)}.",
        [Table("Bits on the same patients", rows)],
        ["The objective asks what would make the network say the class, so bits without the finding are no error."],
    )


def fresh(seed: int) -> nn.Module:
    """A network that has learnt nothing."""
    torch.manual_seed(1000 + seed)
    return create_backbone("densenet121", 8, pretrained=False).eval()


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """Spearman correlation over pixels, (N,)."""
    return spearman(one.double(), other.double())
