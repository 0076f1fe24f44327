"""Means with bootstrap intervals by patient: images of one patient are no independent evidence."""

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lightning_chex.estimates import Estimate, Summary

_BLOCK = 2**22  # numbers at once

_LEAST_ERROR = 0.125
"""Least standard error of a resample, in those of the data: one that draws nearly the same patients throughout would
otherwise make the interval arbitrarily wide."""


def summarize(
    values: npt.ArrayLike,
    patients: Sequence[Hashable],
    classes: npt.ArrayLike | None = None,
    num_classes: int = 1,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Summary:
    """Give the mean of a measure over boxes, over classes and per class, with intervals by patient.

    As many patients as there are with a value that counts are drawn with replacement, each with all of its values. How
    far the mean of such a resample lies from the mean of all, in standard errors of that resample, gives the interval
    (studentised bootstrap, Efron 1979; Davison and Hinkley 1997, section 5.2.1): with few patients and skewed values it
    holds the truth more often than percentiles or BCa, see ``benchmarks/results/interval_coverage.md``. It may reach
    beyond what a value can be: give the ``bounds`` of a measure that has some by definition. A resample in which a
    class does not occur is left out of that class's interval, and
    the class out of that resample's class mean. The same seed draws the same patients for every measure of the same
    maps. Give differences as values, one a map, for the interval of a paired difference.

    Args:
        values: one a map, (n,); NaN is left out.
        patients: who each map shows, n of them.
        classes: class of each map, int (n,); None for a single one.
        num_classes: number of classes.
        resamples: >= 1.
        confidence: in (0, 1).
        seed: of the resamples.
        bounds: least and greatest possible value, to which intervals are cut.

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
    total = np.zeros(shape)
    count = np.zeros(shape)
    centre = values[counted].mean() if counted.any() else 0.0  # or rounding would hide a spread far below the mean
    np.add.at(total, (person, kinds[counted]), values[counted] - centre)
    np.add.at(count, (person, kinds[counted]), 1)

    observed, error = (own[0] for own in _means(np.ones((1, len(numbers))), total, count))
    drawn = [_means(block, total, count) for block in _weights(len(numbers), resamples, seed)]
    means, errors = (np.concatenate(own) for own in zip(*drawn, strict=True))
    tail = (1 - confidence) / 2
    estimates = []
    for column, value in enumerate(observed):
        sizes = count if column < 2 else count[:, column - 2 : column - 1]
        people = int((sizes.sum(1) > 0).sum())
        low = np.nan
        high = np.nan
        if people > 1:
            low, high = _studentised(value, error[column], means[:, column], errors[:, column], tail)
        low, high = np.clip((low + centre, high + centre), *bounds).tolist()
        at = float(value + centre)
        estimates.append(Estimate(at, low, high, int(sizes.sum()), people))
    return Summary(estimates[0], estimates[1], tuple(estimates[2:]))


def _studentised(value: float, error: float, means: np.ndarray, errors: np.ndarray, tail: float) -> tuple[float, float]:
    """Interval of a mean from its resamples (R,) and their standard errors; NaN where no resample holds any value."""
    occurs = ~np.isnan(means)
    if not occurs.any():  # of few resamples, none may hold a rare class
        return np.nan, np.nan
    if not error > 0:
        return value, value
    scaled = (means[occurs] - value) / np.maximum(errors[occurs], error * _LEAST_ERROR)
    upper, lower = np.quantile(scaled, [1 - tail, tail])
    return value - upper * error, value - lower * error


def _weights(people: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each patient is drawn, float64 (R, P), in blocks that fit the memory."""
    drawn = _drawn(people, resamples, seed)
    block = max(1, _BLOCK // max(1, people))
    for start in range(0, resamples, block):
        yield drawn[start : start + block].astype(np.float64)


@lru_cache(maxsize=4)  # every measure of the same maps draws the same
def _drawn(people: int, resamples: int, seed: int) -> np.ndarray:
    """The draws of ``_weights`` in a byte each: nobody is drawn 256 times."""
    if not people:
        return np.zeros((resamples, 0), dtype=np.uint8)
    generator = np.random.default_rng(seed)
    return generator.multinomial(people, np.full(people, 1 / people), size=resamples).astype(np.uint8)


def _means(weights: np.ndarray, total: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, mean over classes, means per class, (R, 2 + K), for weights (R, P) of the patients; NaN without values.

    And their standard errors by the linear approximation of a ratio (R, 2 + K): a patient moves a mean by its sum less
    the mean times its number of values, over all values. A factor common to all of them is left out.
    """
    per_class, class_errors = _ratio(weights, total, count)
    if total.shape[1] == 1:
        return np.repeat(per_class, 3, axis=1), np.repeat(class_errors, 3, axis=1)
    mean, error = _ratio(weights, total.sum(1, keepdims=True), count.sum(1, keepdims=True))
    sizes = weights @ count
    occurs = sizes > 0
    classes = occurs.sum(1, keepdims=True).astype(np.float64)
    class_mean = _divided(np.nansum(per_class, axis=1, keepdims=True), classes)
    share = _divided(occurs.astype(np.float64), sizes * classes)
    moved = np.nan_to_num(share) @ total.T - np.nan_to_num(share * per_class) @ count.T  # (R, P)
    class_mean_error = np.sqrt((weights * moved**2).sum(1, keepdims=True))
    return np.hstack([mean, class_mean, per_class]), np.hstack([error, class_mean_error, class_errors])


def _ratio(weights: np.ndarray, total: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each column and its standard error, (R, K) each."""
    sizes = weights @ count
    mean = _divided(weights @ total, sizes)
    spread = weights @ total**2 - 2 * mean * (weights @ (total * count)) + mean**2 * (weights @ count**2)
    return mean, _divided(np.sqrt(np.maximum(spread, 0.0)), sizes)


def _divided(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return np.divide(upper, lower, out=np.full_like(upper, np.nan), where=lower > 0)
