"""Means with their confidence intervals, as metrics return them and reports show them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval by patient.

    Attributes:
        value: the mean; NaN where nothing was counted.
        ci_low: lower end of the interval; NaN with fewer than two patients, or where no resample holds any; the mean
            itself where all patients agree on it.
        ci_high: upper end of the interval.
        n: values that count, those that are not NaN.
        patients: patients they come from.
    """

    value: float
    ci_low: float
    ci_high: float
    n: int
    patients: int

    @property
    def known(self) -> bool:
        """Whether there is a finite value."""
        return math.isfinite(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether both ends of the interval are finite."""
        return math.isfinite(self.ci_low) and math.isfinite(self.ci_high)

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, -self.ci_high, -self.ci_low, self.n, self.patients)


UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0, 0)
"""The estimate of a measure that was not taken."""


@dataclass(frozen=True)
class Summary:
    """A measure over a set of maps.

    Attributes:
        mean: over all values, so over boxes where there is a value a box.
        class_mean: mean over the classes that occur of their means; None where it was not taken.
        per_class: one a class; empty where they were not taken.
    """

    mean: Estimate
    class_mean: Estimate | None = None
    per_class: tuple[Estimate, ...] = ()
