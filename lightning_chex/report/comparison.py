"""Comparison of methods by paired differences on the same cases."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from lightning_chex.estimates import Estimate
from lightning_chex.report.results import Results

MIN_PATIENTS = 30
"""With fewer, an interval depends too much on the sample: no method is called better than another."""


def clear_of_zero(difference: Estimate, better: str | None) -> bool:
    """Whether a difference favours the first of the two: enough patients, and the interval on the better side of 0.

    Example:
        >>> clear_of_zero(Estimate(0.2, 0.1, 0.3, n=99, patients=40), "higher")
        True
        >>> clear_of_zero(Estimate(0.2, 0.1, 0.3, n=99, patients=29), "higher")
        False
        >>> clear_of_zero(Estimate(0.2, -0.1, 0.5, n=99, patients=40), "higher")
        False
    """
    if difference.patients < MIN_PATIENTS or not difference.has_interval:
        return False
    return (better == "higher" and difference.ci_low > 0) or (better == "lower" and difference.ci_high < 0)


def beaten(results: Results, name: str, key: str, others: list[str], *, over_classes: bool = False) -> list[str]:
    """Those of ``others`` that a method does better than."""
    better = results.better(key)
    return [
        other
        for other in others
        if clear_of_zero(results.difference(name, other, key, over_classes=over_classes), better)
    ]


def common_n(means: Iterable[Estimate]) -> int:
    """The n that most of the means with a value have; 0 without any."""
    counts = Counter(mean.n for mean in means if mean.known).most_common(1)
    return counts[0][0] if counts else 0


def judged(results: Results, key: str, *, over_classes: bool = False) -> list[str]:
    """Controls that have a value of a measure."""
    return [name for name in results.controls if results.estimate(name, key, over_classes=over_classes).known]


def most_patients(results: Results, key: str) -> int:
    """The largest number of patients behind a difference in a measure; 0 where none was taken."""
    pairs = [(name, other) for name in results.methods for other in results.names if other != name]
    return max((results.difference(*pair, key).patients for pair in pairs), default=0)


def withheld(results: Results, key: str) -> str | None:
    """Why no method is called better or worse by a measure; None where methods may be compared.

    Example:
        >>> withheld(Results("classification", ["Mass"], None, {}, {}, {}, {}, {}, {}), "road")
        'these results hold no paired differences'
    """
    patients = most_patients(results, key)
    if not patients:
        return "these results hold no paired differences"
    if patients < MIN_PATIENTS:
        return f"{patients} {'patient' if patients == 1 else 'patients'}, fewer than {MIN_PATIENTS}"
    return None


def best_method(results: Results, key: str, *, over_classes: bool = False) -> tuple[frozenset[str], bool]:
    """The methods with the best value, and whether they do better than every control.

    Of several that are equally good, only those above every control count if any is. There is none where nothing is
    better: without a direction, with too few patients, or where all of two or more methods are equal and not above.
    """
    of: dict[str, Any] = {"over_classes": over_classes}
    sign = {"higher": 1.0, "lower": -1.0}.get(results.better(key) or "", 0.0)
    means = {name: results.estimate(name, key, **of) for name in results.methods}
    known = {name: sign * mean.value for name, mean in means.items() if mean.known}
    if not known or not sign or withheld(results, key):
        return frozenset(), False
    best = frozenset(name for name, value in known.items() if value == max(known.values()))
    controls = judged(results, key, **of)
    above = frozenset(name for name in best if controls and controls == beaten(results, name, key, controls, **of))
    if not above and len(best) == len(known) > 1:
        return frozenset(), False
    return above or best, bool(above)
