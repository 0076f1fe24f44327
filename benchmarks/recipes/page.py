"""The page that says what the recipes reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.pages import interval, table
from benchmarks.recipes.scores import MEASURES, Scores
from lightning_chex.class_names import PATHOLOGIES

LOCALIZED = {
    "iou/fixed_share": "IoU, fixed share of pixels",
    "iou/tuned": "IoU, tuned per class",
    "pointing_game": "pointing game",
}

MAPS = (
    "IBA's maps against the expert boxes of the reporting half of the test images, by `python -m lightning_chex "
    "evaluate --methods '[IBA]'`; thresholds are tuned, and the prior map (mean box of the class) is made, on the "
    "other half. Intervals: studentised bootstrap by patient. A map that says where findings are beats the prior map."
)

TRIED = (
    "The recipe's `head_lr` was raised from 1e-3 to 1e-2 by validation images alone: in so few epochs the new last "
    "layer had hardly begun to learn. `freeze`, the number of epochs and 128 px were set to save time and not compared "
    "with others; 224 px and stronger augmentation were not tried."
)


@dataclass(frozen=True)
class Row:
    """A way to predict.

    Attributes:
        name: of the recipe.
        scores: on the official test images.
        told: what it reached where choices were made.
        seconds: of CPU time, one training.
    """

    name: str
    scores: Scores
    told: str
    seconds: float


def line(row: Row) -> str:
    """One line for the terminal."""
    return (
        f"{row.name}: AUROC {interval(*row.scores.interval(0))}, AP {interval(*row.scores.interval(1))}; {row.told}; "
        + (f"{row.seconds:.0f} s")
    )


def markdown(
    rows: Sequence[Row], maps: Sequence[Mapping[str, Any]], labels: np.ndarray, told: Mapping[str, str]
) -> str:
    """Write the page.

    Args:
        rows: logistic regressions first; the first of all is what the others are compared with.
        maps: ``results.json`` of an evaluation for each training seed of the best recipe.
        labels: of the official test images, (N, 8).
        told: texts under ``data``, ``command``, ``commit`` and ``machine``.
    """
    out = ["# Recipes for few real images", "", f"`{told['command']}`, commit {told['commit']}, {told['machine']}.", ""]
    out += [told["data"], "", _finding(rows), "", "## How well they predict", ""]
    head = ["", *(f"{name}, mean over classes" for name in MEASURES), f"AUROC less that of {rows[0].name}"]
    head += ["between seeds", "chosen by", "CPU minutes a training, or a regression on features already there"]
    first = rows[0].scores
    body = []
    for row in rows:
        means = row.scores.by_seed[:, 0]
        paired = "" if row is rows[0] else interval(*row.scores.interval(0, minus=first), signed=True)
        seeds = "one run" if len(means) == 1 else f"{len(means)} seeds, {means.min():.3f} to {means.max():.3f}"
        cells = [interval(*row.scores.interval(m)) for m in range(len(MEASURES))]
        body.append([row.name, *cells, paired, seeds, row.told, f"{row.seconds / 60:.1f}"])
    out += [*table(head, body), ""]
    out += [TRIED, ""]
    for m, measure in enumerate(MEASURES):
        out += [f"## {measure} by class", ""]
        head = ["", "positive test images", *(row.name for row in rows)]
        body = [
            [name, str(int(labels[:, k].sum())), *(interval(*row.scores.interval(m, k)) for row in rows)]
            for k, name in enumerate(PATHOLOGIES)
        ]
        out += [*table(head, body), ""]
    out += ["## Where the best recipe looks", "", MAPS, ""] if maps else []
    for seed, found in enumerate(maps):
        methods = {**found["methods"], **found["controls"]}
        body = [[name, *(_estimate(own, key) for key in LOCALIZED)] for name, own in methods.items()]
        out += [f"Training seed {seed}:", "", *table(["", *LOCALIZED.values()], body), ""]
    return "\n".join(out)


def data(labels: np.ndarray, patients: Sequence[str], training: int, validation: int) -> str:
    """Say which images were learnt from, and which the figures are of."""
    healthy = int((labels.sum(1) == 0).sum())
    return (
        f"NIH ChestX-ray8: learnt from {training} images of the official training list, {validation} more of other "
        f"patients of that list for early stopping. Measured on all {len(labels)} images at hand of the official test "
        f"list ({len(set(patients))} patients), on which nothing was chosen or learnt. Most were taken because "
        f"experts drew boxes on them, so only {healthy} show none of the eight findings: a class is told from other "
        "findings rather than from healthy chests, which is harder than on the publisher's whole test list, and AP "
        "rests on prevalences that are not the publisher's. Intervals: 95 % percentiles of 2000 draws of the test "
        "patients; of several training seeds the mean, with the same draws. They do not hold the spread between "
        "training seeds, which stands beside."
    )


def _finding(rows: Sequence[Row]) -> str:
    """Say whether a training beats the logistic regression on frozen features."""
    first = rows[0]
    said = []
    for row in rows[1:]:
        value, low, high = row.scores.interval(0, minus=first.scores)
        verdict = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
        said.append(f"**{row.name}** is {verdict} it ({value:+.3f}, {low:+.3f} to {high:+.3f})")
    reached = interval(*first.scores.interval(0))
    return f"The logistic regression on {first.name} reaches AUROC {reached}; by mean AUROC " + "; ".join(said) + "."


def _estimate(method: Mapping[str, Any], key: str) -> str:
    own = method.get(key)
    if own is None or own["ci_low"] is None:
        return ""
    return interval(own["value"], own["ci_low"], own["ci_high"])
