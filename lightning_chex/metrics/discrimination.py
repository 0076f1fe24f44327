"""AUROC with its interval by patient."""

from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from lightning_chex.estimates import UNKNOWN, Estimate


def auroc_estimate(
    scores: npt.ArrayLike, labels: npt.ArrayLike, patients: Sequence[Hashable], confidence: float = 0.95
) -> Estimate:
    """Give the mean AUROC over classes with its interval by patient.

    The standard error is that of DeLong et al. (1988) for clustered data (Obuchowski 1997): what each image adds to the
    AUROC of each class is summed by patient, so that neither the images of a patient nor the classes of an image count
    as independent. The interval is symmetric on the logit scale (Pepe 2003, section 5.2.4).

    Args:
        scores: float (N, K), higher for the class.
        labels: (N, K) in {0, 1}, NaN where not known.
        patients: who each image shows, N of them.
        confidence: in (0, 1).

    Returns:
        The mean over the classes that have both kinds of label, from 0 to 1; ``n`` images with any known label of
        these. NaN without such a class; without an interval where the AUROC is 0 or 1, or of one patient.

    Raises:
        ValueError: shapes that differ, or a confidence outside its range.

    Example:
        >>> found = auroc_estimate([[0.1], [0.4], [0.35], [0.8]], [[0], [0], [1], [1]], ["a", "b", "c", "d"])
        >>> found.value, found.n
        (0.75, 4)
    """
    scores, labels = (np.asarray(own, dtype=np.float64) for own in (scores, labels))
    if scores.ndim != 2 or scores.shape != labels.shape or len(scores) != len(patients):
        raise ValueError(f"scores {scores.shape}, labels {labels.shape} and patients ({len(patients)},) differ")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r} must be in (0, 1)")
    found = [own for own in map(_influence, scores.T, labels.T) if own is not None]
    if not found:
        return UNKNOWN
    value = float(np.mean([area for area, _ in found]))
    counted = np.any([~np.isnan(moved) for _, moved in found], axis=0)
    moved = np.mean([np.nan_to_num(moved) for _, moved in found], axis=0)
    numbers: dict[Hashable, int] = {}
    person = [numbers.setdefault(own, len(numbers)) for own, counts in zip(patients, counted, strict=True) if counts]
    people = np.bincount(person, moved[counted])
    count = len(people)
    n = int(counted.sum())
    if count < 2 or not 0 < value < 1:
        return Estimate(value, np.nan, np.nan, n, count)
    error = float(np.sqrt((people**2).sum() * count / (count - 1)))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * error / (value * (1 - value))
    centre = np.log(value / (1 - value))
    low, high = (float(1 / (1 + np.exp(-own))) for own in (centre - reach, centre + reach))
    return Estimate(value, low, high, n, count)


def _influence(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray] | None:
    """AUROC of a class, and how far each image moves it, (N,), NaN for those of which it is not known."""
    positive = labels > 0
    negative = labels == 0
    ones = int(positive.sum())
    zeros = int(negative.sum())
    if not ones or not zeros:
        return None
    known = positive | negative
    overall = np.full(len(scores), np.nan)
    overall[known] = _ranks(scores[known])
    beaten = (overall[positive] - _ranks(scores[positive])) / zeros  # share of negatives below
    beating = 1 - (overall[negative] - _ranks(scores[negative])) / ones  # of positives above
    area = float(beaten.mean())
    moved = np.full(len(scores), np.nan)
    moved[positive], moved[negative] = (beaten - area) / ones, (beating - area) / zeros
    return area, moved


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, of equal values their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
