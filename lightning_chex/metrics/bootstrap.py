"""Means with bootstrap intervals by patient: images of one patient are no independent evidence."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BLOCK = 2**22  # numbers drawn at once


@dataclass(frozen=True)
class Estimate:
    """A mean and how far it can be trusted.

    Attributes:
        value: the mean; NaN where nothing was counted.
        ci_low: lower end of the interval; NaN with fewer than two patients, or where no resample holds any.
        ci_high: upper end of the interval.
        n: values that count, those that are not NaN.
        patients: patients they come from.
    """

    value: float
    ci_low: float
    ci_high: float
    n: int
    patients: int


@dataclass(frozen=True)
class Summary:
    """A measure over a set of maps.

    Attributes:
        mean: over all values, so over boxes where there is a value a box.
        class_mean: mean over the classes that occur of their means.
        per_class: one a class.
    """

    mean: Estimate
    class_mean: Estimate
    per_class: tuple[Estimate, ...]


def summarize(
    values: npt.ArrayLike,
    patients: Sequence[Hashable],
    classes: npt.ArrayLike | None = None,
    num_classes: int = 1,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Summary:
    """Give the mean of a measure over boxes, over classes and per class, with intervals by patient.

    As many patients as there are with a value that counts are drawn with replacement, each with all of its values; the
    interval holds the middle ``confidence`` of the means (percentile bootstrap). A resample in which a class does not
    occur is left out of that class's interval, and the class out of that resample's class mean. The same seed draws
    the same patients for every measure of the same maps.

    Args:
        values: one a map, (n,); NaN is left out.
        patients: who each map shows, n of them.
        classes: class of each map, int (n,); None for a single one.
        num_classes: number of classes.
        resamples: >= 1.
        confidence: in (0, 1).
        seed: of the resamples.

    Returns:
        The estimates.

    Raises:
        ValueError: lengths that differ, a class outside its range, a setting outside its range.

    Example:
        >>> summary = summarize([0.0, 1.0, 2.0], ["a", "a", "b"])
        >>> summary.mean.value, summary.mean.n, summary.mean.patients
        (1.0, 3, 2)
    """
    values = np.asarray(values, dtype=np.float64)
    kinds = np.zeros(len(values), dtype=np.int64) if classes is None else np.asarray(classes).astype(np.int64)
    if values.ndim != 1 or len(values) != len(patients) or kinds.shape != values.shape:
        raise ValueError(
            f"values {values.shape}, patients ({len(patients)},) and classes {kinds.shape} differ: one each a map"
        )
    if len(kinds) and not 0 <= kinds.min() <= kinds.max() < num_classes:
        raise ValueError(f"classes reach from {kinds.min()} to {kinds.max()}: outside 0..{num_classes - 1}")
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(f"resamples={resamples!r} must be at least 1, confidence={confidence!r} in (0, 1)")

    counted = ~np.isnan(values)
    numbers: dict[Hashable, int] = {}
    person = np.array(
        [numbers.setdefault(p, len(numbers)) for p, counts in zip(patients, counted, strict=True) if counts],
        dtype=np.int64,
    )
    shape = (len(numbers), num_classes)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (person, kinds[counted]), values[counted])
    np.add.at(count, (person, kinds[counted]), 1)

    observed = _means(np.ones((1, len(numbers))), total, count)[0]
    drawn = _resampled(total, count, resamples, seed)
    tail = (1 - confidence) / 2
    estimates = []
    for column, value in enumerate(observed):
        sizes = count if column < 2 else count[:, column - 2 : column - 1]
        people = int((sizes.sum(1) > 0).sum())
        means = drawn[~np.isnan(drawn[:, column]), column]
        # of few resamples, none may hold a rare class
        low, high = np.quantile(means, [tail, 1 - tail]) if people > 1 and len(means) else (np.nan, np.nan)
        estimates.append(Estimate(float(value), float(low), float(high), int(sizes.sum()), people))
    return Summary(estimates[0], estimates[1], tuple(estimates[2:]))


def _resampled(total: np.ndarray, count: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means (resamples, 2 + K) over redrawn patients, see ``_means``."""
    people = len(total)
    if not people:
        return np.full((resamples, 2 + total.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // people)
    parts = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        # how often each patient is drawn
        weights = generator.multinomial(people, np.full(people, 1 / people), size=rows).astype(np.float64)
        parts.append(_means(weights, total, count))
    return np.concatenate(parts)


def _means(weights: np.ndarray, total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean, mean over classes, means per class, (R, 2 + K), for weights (R, P) of the patients; NaN without values."""
    sums, sizes = weights @ total, weights @ count

    def ratio(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
        return np.divide(upper, lower, out=np.full_like(upper, np.nan), where=lower > 0)

    per_class = ratio(sums, sizes)
    occurring = (sizes > 0).sum(1).astype(np.float64)
    class_mean = ratio(np.nansum(per_class, axis=1), occurring)
    return np.column_stack([ratio(sums.sum(1), sizes.sum(1)), class_mean, per_class])
