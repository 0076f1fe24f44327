"""Claim 1: IBA needs only enough, Inverse IBA finds everything (section 2.2, Fig. 1 and its discussion)."""

from itertools import product

import torch
from torch import Tensor, nn

from benchmarks.claims.populations import TUNING, Cases, two_cues
from benchmarks.claims.study import (
    LAYER,
    LAYERS,
    RULE,
    Claim,
    Measured,
    Sample,
    Study,
    Table,
    decide,
    marked,
    outputs,
    several,
)
from benchmarks.pages import estimate
from lightning_chex.attribution import Attributor, GradCAM, Gradient, MultiLayerIBA, RandomMap

OBJECTIVES = {"class": "binary_cross_entropy", "one-hot": "one_hot_binary_cross_entropy"}
BETAS = {"class": (3.0, 10.0, 30.0, 100.0), "one-hot": (1.0, 3.0, 10.0)}
"""The one-hot objective is a mean over eight outputs, so that a beta weighs eight times as much there."""

POOL = 4
"""Few findings are recognised in either lung alone: so many times the cases asked for are looked through."""

LEVELS = 4
"""Totals of bits at which maps of equal information are compared, between the quartiles of all maps."""


def claim(study: Study) -> Claim:
    """Recall of both cues at the area they cover, and the fall of the output when the marked area is made healthy."""
    sample = study.sample("redundancy", measure)
    betas = {own: chosen_beta(study, *own) for own in product(OBJECTIVES, (False, True))}
    for (kind, inverse), beta in betas.items():
        swept_name = name_of(kind, inverse, beta)
        own_name = name_of(kind, inverse, None)
        for key in ("bits", "both", "worse", "fall"):
            sample.values[f"{key}|{own_name}"] = sample.values[f"{key}|{swept_name}"]
    rows = []
    for name in dict.fromkeys(key.split("|")[1] for key in sample.values if key.startswith("both|")):
        if "beta" in name and "chosen" not in name:
            continue
        rows.append(
            {
                "method": name,
                "both cues found": estimate(sample.mean(f"both|{name}")),
                "recall of the worse cue": estimate(sample.mean(f"worse|{name}")),
                "fall of the output": estimate(sample.mean(f"fall|{name}")),
                "n": sample.mean(f"both|{name}").n,
            }
        )
    matched = [matched_rows(sample, kind) for kind in OBJECTIVES]
    iba, inverse = (f"both|{name_of('class', own, None)}" for own in (False, True))
    found = (sample.mean(inverse), sample.mean(iba))
    difference = sample.difference(inverse, iba)
    by_seed = sample.by_seed(inverse, iba)
    verdict = decide(difference, by_seed)
    return Claim(
        "Sufficient or all",
        "IBA marks regions that suffice for the prediction; Inverse IBA finds all regions that are informative "
        "(section 2.2, Fig. 1).",
        verdict,
        f"Inverse IBA finds both cues (at least half of the pixels of each) more often than IBA. {RULE}",
        f"Inverse IBA finds both cues in {found[0].value:.0%} of the cases, IBA in {found[1].value:.0%}: difference "
        f"{estimate(difference, signed=True)}, by network {several(by_seed, signed=True)}.",
        [
            Table("At the area of both cues, beta chosen on other patients", rows),
            Table("Sweep of beta", swept(sample)),
            *[
                Table(f"At equal bits, objective {kind}: Inverse less IBA, recall of the worse cue", own)
                for kind, own in zip(OBJECTIVES, matched, strict=True)
            ],
        ],
        [
            "Beta is the one of the sweep with the best recall of the worse cue on tuning patients, for each method by "
            "itself. There are few of them, of the first network alone: the sweep shows what other betas give, and a "
            "verdict by the best of them would be tuned on what is reported.",
            "Maps at equal bits are compared by linear interpolation over the logarithm of their bits.",
        ],
    )


def name_of(kind: str, inverse: bool, beta: float | None) -> str:
    """What a row is called."""
    method = "Inverse IBA" if inverse else "IBA"
    return f"{method}, {kind}, {'chosen' if beta is None else f'beta {beta:g}'}"


def recognised(network: nn.Module, cases: Cases) -> Cases:
    """The cases that the network recognises by either cue alone (probability .5 or more), and not without."""
    rows = torch.arange(len(cases))
    alone = [torch.where(cases.regions[:, i, None], cases.images, cases.healthy) for i in (0, 1)]
    seen = [outputs(network, images).sigmoid()[rows, cases.target] for images in (*alone, cases.healthy)]
    present = cases.regions.flatten(2).any(2).all(1)
    return cases.chosen(present & (seen[0] >= 0.5) & (seen[1] >= 0.5) & (seen[2] < 0.5))


def others(study: Study, seed: int) -> dict[str, Attributor]:
    """What stands beside the two."""
    multi = MultiLayerIBA(LAYERS, batch_size=8)
    for member in multi.members:
        member.statistics = study.statistics("classifier", seed, member.layer)
    return {
        "IBA at denseblock1": study.iba("classifier", seed, LAYERS[0]),
        "Multi-layer IBA, gated": multi,
        "Grad-CAM": GradCAM(LAYER),
        "gradient": Gradient(),
        "random map": RandomMap(),
    }


def measured(network: nn.Module, method: Attributor, cases: Cases, name: str) -> dict[str, Tensor]:
    """Bits of the maps and what `judged` finds of the strongest pixels, as many as the cues have."""
    maps = method.attribute(network, cases.images, cases.target)
    return {f"bits|{name}": maps.sum((1, 2)), **judged(network, cases, marked(maps, cases.area), name)}


def judged(network: nn.Module, cases: Cases, where: Tensor, name: str) -> dict[str, Tensor]:
    """Recall of the cues, and the fall of the probability when the pixels ``where``, bool (N, H, W), become healthy."""
    hits = (where[:, None] & cases.regions).flatten(2).sum(2) / cases.regions.flatten(2).sum(2)
    replaced = torch.where(where[:, None], cases.healthy, cases.images)
    rows = torch.arange(len(cases))
    before, after = (outputs(network, own).sigmoid()[rows, cases.target] for own in (cases.images, replaced))
    worse = hits.amin(1)
    return {f"both|{name}": (worse >= 0.5).float(), f"worse|{name}": worse, f"fall|{name}": before - after}


def measure(study: Study, seed: int) -> Measured:
    """Every beta of the sweep, and what stands beside the two, on findings that one network sees in either lung."""
    network = study.network("classifier", seed)
    cases = recognised(network, two_cues(POOL * study.cases)).at_most(study.cases)
    values = of_sweep(study, seed, cases)
    for name, method in others(study, seed).items():
        values |= measured(network, method, cases, name)
    values |= judged(network, cases, cases.regions.any(1), "the truth itself")
    return cases.patients, values


def tune(study: Study, seed: int) -> Measured:
    """The sweep on tuning patients."""
    number = max(12, study.cases // 2)
    cases = recognised(study.network("classifier", seed), two_cues(POOL * number, TUNING)).at_most(number)
    return cases.patients, of_sweep(study, seed, cases)


def of_sweep(study: Study, seed: int, cases: Cases) -> dict[str, Tensor]:
    """IBA and Inverse IBA, both objectives, at all betas."""
    network = study.network("classifier", seed)
    values = {}
    for kind, inverse in product(OBJECTIVES, (False, True)):
        for beta in BETAS[kind]:
            method = study.iba("classifier", seed, inverse=inverse, objective=OBJECTIVES[kind], beta=beta)
            values |= measured(network, method, cases, name_of(kind, inverse, beta))
    return values


def chosen_beta(study: Study, kind: str, inverse: bool) -> float:
    """The beta with the best recall of the worse cue on tuning patients, with the first network."""
    _, values = study.measured("redundancy-tuning", study.seeds[0], tune)
    return max(BETAS[kind], key=lambda beta: float(values[f"worse|{name_of(kind, inverse, beta)}"].mean()))


def swept(sample: Sample) -> list[dict[str, str | float]]:
    """One row a method and beta."""
    rows = []
    for kind, betas in BETAS.items():
        for inverse in (False, True):
            for beta in betas:
                name = name_of(kind, inverse, beta)
                bits = torch.tensor(sample.values[f"bits|{name}"])
                rows.append(
                    {
                        "method": name,
                        "bits, median": f"{float(bits.nanmedian()):.0f}",
                        "both cues found": estimate(sample.mean(f"both|{name}")),
                        "recall of the worse cue": estimate(sample.mean(f"worse|{name}")),
                        "fall of the output": estimate(sample.mean(f"fall|{name}")),
                    }
                )
    return rows


def matched_rows(sample: Sample, kind: str) -> list[dict[str, str | float]]:
    """Recall of the worse cue of both methods, interpolated to equal totals of bits, and their paired difference."""
    bits, worse = (
        torch.tensor(
            [[sample.values[f"{key}|{name_of(kind, own, beta)}"] for beta in BETAS[kind]] for own in (False, True)]
        )
        for key in ("bits", "worse")
    )  # (2, B, N)
    logs = bits.clamp(min=1e-3).log()
    levels = logs.flatten().quantile(torch.linspace(0.25, 0.75, LEVELS).to(logs))
    rows = []
    for level in levels:
        at = torch.stack([interpolated(logs[i], worse[i], float(level)) for i in (0, 1)])
        own = Sample()
        for seed in sorted(set(sample.seeds)):
            of = [i for i, s in enumerate(sample.seeds) if s == seed]
            own.add(seed, [sample.patients[i] for i in of], iba=at[0, of], inverse=at[1, of])
        difference = own.difference("inverse", "iba")
        rows.append(
            {
                "bits": f"{float(level.exp()):.0f}",
                "IBA": f"{own.mean('iba').value:.3f}",
                "Inverse": f"{own.mean('inverse').value:.3f}",
                "difference": estimate(difference, signed=True),
                "n": difference.n,
            }
        )
    return rows


def interpolated(places: Tensor, values: Tensor, at: float) -> Tensor:
    """Values (B, N) at places (B, N), interpolated linearly to one place; NaN where it is outside, (N,)."""
    order = places.argsort(0)
    places = places.gather(0, order)
    values = values.gather(0, order)
    result = torch.full_like(values[0], torch.nan)
    for low in range(len(places) - 1):
        inside = (places[low] <= at) & (at <= places[low + 1])
        share = (at - places[low]) / (places[low + 1] - places[low]).clamp(min=1e-9)
        result = torch.where(inside, values[low] + share * (values[low + 1] - values[low]), result)
    return result
