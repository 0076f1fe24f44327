"""How often intervals by patient hold the true mean, against the number of patients: percentiles, BCa, studentised.

    python -m benchmarks.interval_coverage --output benchmarks/results/interval_coverage.md

Made-up values with the shapes of real ones: skewed, with many zeros, alike within a patient, and one to nine maps a
patient, or one each. The true mean is that of 400,000 patients; the nominal coverage is .95. Percentiles and BCa are
SciPy's, the studentised interval is the package's own.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from benchmarks import origin
from lightning_chex.metrics import Estimate, summarize

CLASSES = 4
Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""The random generator and the patient of each map, (n,), to a value a map, (n,)."""


def _per_patient(draw: Callable[[int], np.ndarray], person: np.ndarray) -> np.ndarray:
    return draw(int(person.max()) + 1)[person]


def skewed(rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """IoU of a fair method: a third zeros, the rest far below a half."""
    missed = _per_patient(lambda size: rng.beta(1.5, 2.7, size), person)
    return rng.beta(0.8, 4, len(person)) * (rng.random(len(person)) > missed)


def mostly_zeros(rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """IoU of a poor method: three quarters zeros, half of the patients nothing else."""
    missed = _per_patient(lambda size: rng.beta(1.2, 0.4, size), person)
    return rng.beta(1, 4, len(person)) * (rng.random(len(person)) > missed)


def hits(rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """Pointing game: 0 or 1, hit in a fifth."""
    return (rng.random(len(person)) < _per_patient(lambda size: rng.beta(0.6, 2.4, size), person)).astype(float)


def mild(rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """Insertion AUC: no zeros, alike within a patient."""
    return np.clip(_per_patient(lambda size: rng.beta(2, 6, size), person) + rng.normal(0, 0.1, len(person)), 0, 1)


def by_number(rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """IoU that is twice as large for patients with a single map."""
    alone = np.bincount(person)[person] == 1
    return skewed(rng, person) * np.where(alone, 1.0, 0.5)


def difference(rng: np.random.Generator, person: np.ndarray) -> np.ndarray:
    """IoU of one method less that of another on the same maps, alike in what both miss."""
    missed = _per_patient(lambda size: rng.beta(1.5, 2.7, size), person)
    found = rng.random(len(person)) > missed
    return found * (rng.beta(0.8, 4, len(person)) - rng.beta(0.6, 5, len(person)) * (rng.random(len(person)) < 0.7))


VALUES: dict[str, Draw] = {
    "IoU, skewed": skewed,
    "IoU, mostly zeros": mostly_zeros,
    "hit or miss": hits,
    "AUC, mild": mild,
    "IoU, by number of maps": by_number,
    "paired difference": difference,
}
SINGLE = {"IoU, mostly zeros, one map each": mostly_zeros, "IoU, skewed, one map each": skewed}
"""As in NIH ChestX-ray8, where most patients with a box have one."""
OVER_CLASSES = "IoU, mean over 4 classes"


def maps_of(rng: np.random.Generator, patients: int, single: bool = False) -> np.ndarray:
    """The patient of each map: half of them have one, some have nine; or everyone has one."""
    if single:
        return np.arange(patients)
    return np.repeat(
        np.arange(patients), np.minimum(rng.geometric(0.5, patients) + 5 * (rng.random(patients) < 0.1), 9)
    )


def scipy_interval(method: str, values: np.ndarray, person: np.ndarray, resamples: int) -> tuple[float, float]:
    """Percentiles or BCa of the ratio of sums over patients."""
    sums = np.bincount(person, values)
    sizes = np.bincount(person).astype(float)
    found = bootstrap(
        (sums, sizes),
        lambda upper, lower, axis: upper.sum(axis) / lower.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        method=method,
        rng=np.random.default_rng(0),
    ).confidence_interval
    # no spread, no interval by BCa: the value itself, as the package says it
    low, high = np.nan_to_num(tuple(found), nan=values.mean())
    return float(low), float(high)


def held(estimate: Estimate, truth: float) -> tuple[bool, float]:
    return estimate.ci_low <= truth <= estimate.ci_high, estimate.ci_high - estimate.ci_low


def trial(
    rng: np.random.Generator, draw: Draw, patients: int, truth: float, resamples: int, single: bool
) -> dict[str, tuple]:
    """Whether each interval of one made-up data set holds the truth, and its width."""
    person = maps_of(rng, patients, single)
    values = draw(rng, person)
    found = {"studentised": held(summarize(values, person.tolist(), resamples=resamples).mean, truth)}
    for method in ("percentile", "BCa"):
        low, high = scipy_interval(method, values, person, resamples)
        found[method] = (low <= truth <= high, high - low)
    return found


def class_trial(rng: np.random.Generator, patients: int, truth: float, resamples: int) -> dict[str, tuple]:
    """The same for the mean over classes, which SciPy has no notion of."""
    person = maps_of(rng, patients)
    values, classes = class_values(rng, person)
    summary = summarize(values, person.tolist(), classes, CLASSES, resamples=resamples)
    return {"studentised": held(summary.class_mean, truth)}


def class_values(rng: np.random.Generator, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Four classes of unequal size, the rarer the better found."""
    classes = rng.choice(CLASSES, len(person), p=[0.4, 0.25, 0.2, 0.15])
    return skewed(rng, person) * np.array([0.5, 0.8, 1.0, 1.2])[classes], classes


def row(name: str, patients: int, trials: list[dict[str, tuple]]) -> str:
    cells = []
    for method in ("percentile", "BCa", "studentised"):
        own = [each[method] for each in trials if method in each]
        if own:
            covered = np.mean([hit for hit, _ in own])
            width = np.median([width for _, width in own])
            cells.append(f"{covered:.3f} ({width:.3f})")
        else:
            cells.append("–")
    return f"| {name} | {patients} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 16, 30])
    parser.add_argument("--values", nargs="+", default=[*VALUES, *SINGLE, OVER_CLASSES], help="rows to fill")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # SciPy's, where all values are equal

    margin = 1.96 * (0.95 * 0.05 / options.trials) ** 0.5
    lines = [
        "# How often a 95 % interval by patient holds the true mean",
        "",
        f"`{origin.command('benchmarks.interval_coverage')}`, commit {origin.commit()}, numpy {np.__version__}, "
        f"{origin.machine()}",
        "",
        f"{options.trials} data sets a row, {options.resamples} resamples each; where the coverage is .950, the figure "
        f"lies within {margin:.3f} of it in 19 rows of 20. In brackets the median width. The values are made up, see "
        "the script for each shape; one to nine maps a patient, or one each where a row says so. The package reports "
        "the studentised interval.",
        "",
        "| values | patients | percentile | BCa | studentised |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    rng = np.random.default_rng(0)

    def add(name: str, patients: int, once: Callable[[], dict[str, tuple]]) -> None:
        lines.append(row(name, patients, [once() for _ in range(options.trials)]))
        print(lines[-1], flush=True)

    for name, draw in {**VALUES, **SINGLE}.items():
        if name in options.values:
            single = name in SINGLE
            truth = float(draw(rng, maps_of(rng, 400_000, single)).mean())
            for patients in options.patients:
                add(name, patients, partial(trial, rng, draw, patients, truth, options.resamples, single))
    if OVER_CLASSES in options.values:
        values, classes = class_values(rng, maps_of(rng, 400_000))
        truth = float(np.mean([values[classes == k].mean() for k in range(CLASSES)]))
        for patients in options.patients:
            add(OVER_CLASSES, patients, partial(class_trial, rng, patients, truth, options.resamples))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
