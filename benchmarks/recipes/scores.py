"""AUROC and average precision of several classes, with bootstrap intervals by patient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MEASURES = ("AUROC", "AP")


@dataclass(frozen=True)
class Scores:
    """Measures of one way to predict.

    Attributes:
        values: (M, K), of M measures and K classes; mean over training seeds.
        drawn: (R, M, K), the same of R resamples of the patients; NaN where a class does not occur in one.
        by_seed: (S, M), mean over classes for each training seed.
    """

    values: np.ndarray
    drawn: np.ndarray
    by_seed: np.ndarray

    def interval(self, measure: int, column: int | None = None, minus: "Scores | None" = None) -> tuple[float, ...]:
        """Value and 95 % percentile interval of a class, or of the mean over classes; or of a paired difference."""
        drawn = self.drawn if minus is None else self.drawn - minus.drawn
        values = self.values if minus is None else self.values - minus.values
        if column is None:
            own = values[measure].mean()
            many = np.nanmean(drawn[:, measure], axis=1)
        else:
            own = values[measure, column]
            many = drawn[:, measure, column]
        low, high = np.nanquantile(many, [0.025, 0.975])
        return float(own), float(low), float(high)


def scores(predictions: Sequence[np.ndarray], labels: np.ndarray, patients: Sequence[str], draws: int = 2000) -> Scores:
    """Score the predictions of one or more training seeds; the same draws of patients for all that are compared.

    Args:
        predictions: one a seed, (N, K), the higher the likelier.
        labels: 0 or 1, (N, K).
        patients: whose image each is; all images of a patient are drawn together.
        draws: resamples.
    """
    numbers = np.unique(np.asarray(patients), return_inverse=True)[1]
    people = int(numbers.max()) + 1
    drawn = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=draws)
    weights = np.vstack([np.ones(people), drawn])[:, numbers]
    found = np.stack([_measures(own, labels, weights) for own in predictions])  # (S, 1 + R, M, K)
    mean = found.mean(axis=0)
    return Scores(mean[0], mean[1:], found[:, 0].mean(axis=2))


def _measures(predicted: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC and AP of each class with weights (R, N) of the images, (R, 2, K); NaN without positives or negatives."""
    columns = [_both(predicted[:, k], labels[:, k], weights) for k in range(labels.shape[1])]
    return np.stack(columns, axis=2)


def _both(predicted: np.ndarray, label: np.ndarray, weights: np.ndarray) -> np.ndarray:
    _, level = np.unique(predicted, return_inverse=True)
    shape = (len(weights), int(level.max()) + 1)
    positive = np.zeros(shape)
    negative = np.zeros(shape)
    for into, chosen in ((positive, label > 0), (negative, label == 0)):
        np.add.at(into.T, level[chosen], weights[:, chosen].T)
    all_positive = positive.sum(1)
    all_negative = negative.sum(1)
    below = np.cumsum(negative, axis=1) - negative / 2  # of equal predictions half are below
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (positive * below).sum(1) / (all_positive * all_negative)
        true = np.cumsum(positive[:, ::-1], axis=1)
        marked = true + np.cumsum(negative[:, ::-1], axis=1)
        precision = np.divide(true, marked, out=np.zeros(shape), where=marked > 0)
        ap = (precision * positive[:, ::-1]).sum(1) / all_positive
    ap[all_negative == 0] = np.nan
    return np.stack([auroc, ap], axis=1)
