"""Beyond the paper: do the shares of the maps tell that a network has learnt a shortcut, while it trains?

A thing beside the patient is linked to a label of the phantom. Small networks are trained with the callback, as a user
trains them; what it logs after the third epoch is compared with the same figures of clean runs, in which the thing is
there at random. Each run also says how much its network relies on the thing: what laying it on an image does to the
logit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from scipy.stats import binomtest

from benchmarks.claims.shortcut_runs import (
    BACKBONE,
    CLASS,
    CONSPICUITY,
    EPOCHS,
    EXPECTED,
    LAYER,
    SIZE,
    TRAINING,
    VALIDATION,
    WATCHED,
    figures_of,
    trained,
)
from benchmarks.claims.study import Claim, Study, Table, Verdict

STRENGTHS = (0.0, 0.5, 0.8, 1.0)
CLEAN = range(100, 119)
"""Seeds of the clean runs that set the limits: of 20 exchangeable runs one is the highest in 5 % of all cases."""

RUNS = range(5)
"""Seeds of the runs that are reported, at every strength."""

WANTED = 0.95
ADMITTED = 0.05


LINKED = "the linked class"

Part = Mapping[str, Any]
"""Runs of one kind and strength: ``kind``, ``strength``, ``runs``, the ``clean`` ones, and ``alarms`` by rule."""


def claims(study: Study) -> list[Claim]:
    """Alarms over strength, for each kind of thing, of IBA, Grad-CAM and AUROC alone; and which of them has more."""
    kinds = list(EXPECTED)
    clean = CLEAN
    seeds = RUNS
    strengths = STRENGTHS
    if study.quick:
        kinds = kinds[:1]
        clean = CLEAN[:2]
        seeds = RUNS[:1]
        strengths = (0.0, 1.0)
    counted: list[Part] = []
    for kind in kinds:
        limits = [trained(study.work, kind, 0.0, seed) for seed in clean]
        for strength in strengths:
            runs = [trained(study.work, kind, strength, seed) for seed in seeds]
            counted.append(
                {
                    "kind": kind,
                    "strength": strength,
                    "runs": runs,
                    "clean": limits,
                    "alarms": judged(kind, runs, limits),
                }
            )
    asked = [own for own in counted if own["strength"] == 0.5]
    false = [own for own in counted if own["strength"] == 0.0]
    raised, wrong = (count(_pooled(own, f"IBA, {LINKED}")) for own in (asked, false))
    return [_power(counted, raised, wrong, len(clean)), _compared([own for own in counted if own["strength"] > 0])]


def _power(counted: Sequence[Part], raised: tuple[int, int], wrong: tuple[int, int], clean: int) -> Claim:
    return Claim(
        "A shortcut raises an alarm",
        f"Within {EPOCHS} epochs the shares of IBA's maps raise an alarm in {WANTED:.0%} of the runs in which a thing "
        f"beside the patient is linked to a label with strength .5, and in at most {ADMITTED:.0%} of those without.",
        verdict(raised, wrong),
        f"It holds where the shares of runs are at least {WANTED:.0%} and at most {ADMITTED:.0%}; it does not hold "
        f"where the 95 % interval of one lies wholly beyond. An alarm of *the linked class*: the figure of {CLASS} in "
        f"the place of the thing is higher than in all {clean} clean runs. An alarm of *any figure*: of the "
        "run and the clean ones, each figure in standard deviations of them all, the run has the highest. Either "
        f"comes in {1 / (clean + 1):.0%} of clean runs by its construction.",
        f"At strength .5 {_shown(raised)} of runs have an alarm of IBA, at 0 {_shown(wrong)}; "
        + "; ".join(
            f"{own['kind']} at {own['strength']:g}: {_shown(count(own['alarms'][f'IBA, {LINKED}']))}"
            for own in counted
            if own["strength"] > 0.5
        )
        + ".",
        [
            Table(
                "Share of runs with an alarm (Wilson's 95 % interval), and reliance on the thing",
                list(_rows(counted)),
            ),
            Table("Alarms over reliance: runs of all strengths above 0", list(_by_reliance(counted))),
        ],
        [
            f"{BACKBONE}, {SIZE} px, {TRAINING} training images, findings of conspicuity {CONSPICUITY}, {VALIDATION} "
            f"validation images, all explained at {LAYER}: chosen so that some hundred trainings are affordable.",
            "A network that does not rely on a shortcut has no alarm to raise: the strength of the link is the data's, "
            "reliance is the network's. It is the mean change of the logit when the thing is laid on images of other "
            "patients, in standard deviations of the logit without it.",
            "AUROC is measured on validation images with the same shortcut: that is how one would see it in training.",
        ],
        _basis(counted),
    )


def _compared(linked: Sequence[Part]) -> Claim:
    pairs = {}
    for name in WATCHED:
        if name != "IBA":
            one, other = (_pooled(linked, f"{own}, {LINKED}") for own in ("IBA", name))
            pairs[name] = [
                sum(a and not b for a, b in zip(one, other, strict=True)),
                sum(b and not a for a, b in zip(one, other, strict=True)),
            ]
    tests = {name: binomtest(more, more + less).pvalue if more + less else 1.0 for name, (more, less) in pairs.items()}
    more = all(pairs[name][0] > pairs[name][1] for name in pairs)
    less = all(pairs[name][0] < pairs[name][1] for name in pairs)
    decided = max(tests.values()) < 0.025
    return Claim(
        "IBA's alarms find more shortcuts",
        "Of runs with a shortcut, IBA's shares raise an alarm in more than Grad-CAM's, and than the AUROC does.",
        "holds" if more and decided else "does not hold" if less and decided else "undecided",
        "Runs of all strengths above 0; a sign test of those in which one of the two has an alarm of the linked class "
        "and the other none, p below .025 against both (two comparisons). This claim was added when the first 30 of "
        "these runs were known.",
        "; ".join(
            f"IBA alone in {pairs[name][0]} runs, {name} alone in {pairs[name][1]} (p = {tests[name]:.2g})"
            for name in pairs
        )
        + ".",
        [],
        ["Both methods at the same layer; Grad-CAM at a later one has fewer cells than a marker needs at 64 px."],
        _basis(linked),
    )


def _basis(counted: Sequence[Part]) -> str:
    kinds = len({own["kind"] for own in counted})
    clean = len(counted[0]["clean"])
    return f"{sum(len(own['runs']) for own in counted)} trainings and {clean} clean ones of each of {kinds} kinds"


def verdict(raised: tuple[int, int], wrong: tuple[int, int]) -> Verdict:
    """Judge alarms at strength .5 and false alarms, as (how many, of how many runs)."""
    if not raised[1] or not wrong[1]:
        return "undecided"
    if raised[0] >= WANTED * raised[1] and wrong[0] <= ADMITTED * wrong[1]:
        return "holds"
    missed = interval(raised)[1] < WANTED or interval(wrong)[0] > ADMITTED
    return "does not hold" if missed else "undecided"


def judged(kind: str, runs: Sequence[dict], clean: Sequence[dict]) -> dict[str, list[bool]]:
    """Which runs have an alarm, under each rule."""
    found = {}
    for name, key in WATCHED.items():
        linked = f"{key}/{CLASS}" if key == "auroc" else f"{key}_{EXPECTED[kind]}/{CLASS}"
        rules = {LINKED: [highest(run, clean, [linked]) for run in runs]}
        rules["any figure"] = [highest(run, clean, figures_of(key)) for run in runs]
        found |= {f"{name}, {rule}": alarms for rule, alarms in rules.items()}
    return found


def count(alarms: Sequence[bool]) -> tuple[int, int]:
    """How many of how many."""
    return sum(alarms), len(alarms)


def highest(run: Mapping[str, float], clean: Sequence[Mapping[str, float]], figures: Sequence[str]) -> bool:
    """Whether a run stands out: its most unusual figure is more so than that of every clean run.

    Each figure is taken in standard deviations of the run and the clean ones together, so that under exchange of the
    runs each is the highest equally often. Figures that any of them lacks are left out.
    """
    pool = torch.tensor([[own.get(name, math.nan) for name in figures] for own in (run, *clean)], dtype=torch.float64)
    pool = pool[:, pool.isfinite().all(0)]
    if not pool.numel():
        return False
    unusual = ((pool - pool.mean(0)) / pool.std(0).clamp(min=1e-12)).max(1).values
    return bool(unusual[0] > unusual[1:].max())


def interval(counted: tuple[int, int]) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, given as (how many, of how many)."""
    found = binomtest(*counted).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _shown(counted: tuple[int, int]) -> str:
    if not counted[1]:
        return "none"
    low, high = interval(counted)
    return f"{counted[0] / counted[1]:.2f} ({low:.2f} to {high:.2f}, of {counted[1]})"


def _pooled(parts: Sequence[Part], rule: str) -> list[bool]:
    return [alarm for own in parts for alarm in own["alarms"][rule]]


def _rows(counted: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for own in counted:
        relied = torch.tensor([run["reliance"] for run in own["runs"]])
        scored = torch.tensor([run[f"auroc/{CLASS}"] for run in own["runs"]])
        yield {
            "thing": own["kind"],
            "strength": f"{own['strength']:g}",
            **{rule: _shown(count(alarms)) for rule, alarms in own["alarms"].items()},
            "reliance, mean (least to most)": f"{relied.mean():.2f} ({relied.min():.2f} to {relied.max():.2f})",
            f"AUROC of {CLASS}": f"{scored.mean():.3f}",
        }


def _by_reliance(counted: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    linked = [(own["kind"], run) for own in counted if own["strength"] > 0 for run in own["runs"]]
    clean = {own["kind"]: own["clean"] for own in counted}
    for low, high in ((-math.inf, 0.25), (0.25, 0.5), (0.5, 1.0), (1.0, math.inf)):
        inside: dict[str, list[bool]] = {}
        for kind, run in linked:
            if low <= run["reliance"] < high:
                for rule, alarms in judged(kind, [run], clean[kind]).items():
                    inside.setdefault(rule, []).extend(alarms)
        if inside:
            bounds = (
                f"below {high:g}"
                if low == -math.inf
                else f"{low:g} or more"
                if high == math.inf
                else f"{low:g} to {high:g}"
            )
            yield {"reliance": bounds, **{rule: _shown(count(own)) for rule, own in inside.items()}}
