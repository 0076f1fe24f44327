"""Means, bootstrap intervals and paired differences of one value per case."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lightning_chex.class_names import SCORE
from lightning_chex.maps import Key
from lightning_chex.metrics import Estimate, Summary, summarize

UNBOUNDED = (-math.inf, math.inf)
"""Bounds of a measure that can take any value."""


@dataclass(frozen=True)
class ExplainedCase:
    """One explained target of an image, without its pictures.

    Attributes:
        key: image id and target name.
        patient: patient id; stays in memory.
        prediction: probability of the class, or the score.
        truth: its label, or the true score.
    """

    key: Key
    patient: str
    prediction: float
    truth: float


@dataclass(frozen=True)
class CaseSummaries:
    """Summaries of measures over the same cases, with intervals by patient.

    Attributes:
        cases: N cases; every list of values below has one value for each, NaN where it is unknown.
        class_names: of the model's outputs; empty for a score.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    cases: Sequence[ExplainedCase]
    class_names: Sequence[str]
    resamples: int
    seed: int

    @cached_property
    def patients(self) -> list[str]:
        """Patient id of each case."""
        return [case.patient for case in self.cases]

    @cached_property
    def classes(self) -> list[int]:
        """Class index of each case."""
        return [self.class_of(case.key) for case in self.cases]

    def class_of(self, key: Key) -> int:
        """Class index of a case; 0 for a score."""
        _, target = key
        if target == SCORE and not self.class_names:
            return 0
        return self.class_names.index(target)

    def summary(self, values: Sequence[float], bounds: tuple[float, float] = UNBOUNDED) -> Summary:
        """Mean over cases, over classes and per class; of a score over cases alone.

        Args:
            values: one per case.
            bounds: least and greatest possible value, to which intervals are cut.
        """
        summary = summarize(
            values,
            self.patients,
            self.classes if self.class_names else None,
            max(1, len(self.class_names)),
            resamples=self.resamples,
            seed=self.seed,
            bounds=bounds,
        )
        if not self.class_names:
            # a score has a single class, whose mean would only repeat the mean over cases
            return Summary(summary.mean)
        return summary

    def mean(self, values: Sequence[float], patients: Sequence[Hashable]) -> Estimate:
        """Mean of values that need not be one per case, such as those of lung zones.

        Args:
            values: any number of them.
            patients: patient of each value.
        """
        return summarize(values, patients, resamples=self.resamples, seed=self.seed).mean

    def median(self, values: Sequence[float]) -> Summary:
        """Median over cases, without an interval."""
        known = []
        patients = set()
        for value, patient in zip(values, self.patients, strict=True):
            if not math.isnan(value):
                known.append(value)
                patients.add(patient)
        return Summary(Estimate(float(np.median(known)), math.nan, math.nan, len(known), len(patients)))

    def difference(self, values: Sequence[float], others: Sequence[float]) -> Summary | None:
        """Paired difference, case by case, on the cases that have both values.

        Both are measured on the same images, and an image that is hard for one is often hard for the other. The
        interval of the paired difference is therefore far narrower than the intervals of the two means suggest, and
        only this interval shows whether one of them is better.

        Args:
            values: minuend, one per case.
            others: subtrahend, one per case.

        Returns:
            Summary of ``values`` minus ``others``; None if no case has both.
        """
        differences = [value - other for value, other in zip(values, others, strict=True)]
        if all_nan(differences):
            return None
        return self.summary(differences)


def all_nan(values: Sequence[float]) -> bool:
    """Return True if no value is known."""
    return all(math.isnan(value) for value in values)
