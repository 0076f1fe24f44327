"""Comparison of methods by paired differences on the same cases."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lightning_chex.estimates import Estimate
from lightning_chex.report.results import Results

MIN_PATIENTS = 30
"""With fewer, an interval depends too much on the sample: no method is called better than another."""


def is_significantly_better(difference: Estimate, better: str | None) -> bool:
    """Return whether a difference favours the first of the two: enough patients, and an interval that excludes 0.

    Args:
        difference: the first minus the second.
        better: direction of the measure, ``higher``, ``lower`` or None.

    Example:
        >>> is_significantly_better(Estimate(0.2, 0.1, 0.3, n=99, patients=40), "higher")
        True
        >>> is_significantly_better(Estimate(0.2, 0.1, 0.3, n=99, patients=29), "higher")
        False
        >>> is_significantly_better(Estimate(0.2, -0.1, 0.5, n=99, patients=40), "higher")
        False
    """
    if difference.patients < MIN_PATIENTS or not difference.has_interval:
        return False
    if better == "higher":
        return difference.ci_low > 0
    if better == "lower":
        return difference.ci_high < 0
    return False


def significantly_better_than(
    results: Results, name: str, key: str, candidates: Iterable[str], *, over_classes: bool = False
) -> list[str]:
    """Methods or controls among ``candidates`` that a method does better than.

    Args:
        results: of the evaluation.
        name: of the method.
        key: of the measure.
        candidates: methods or controls to compare with.
        over_classes: compare means over classes, not over maps.
    """
    better = results.better(key)
    worse = []
    for candidate in candidates:
        difference = results.difference(name, candidate, key, over_classes=over_classes)
        if is_significantly_better(difference, better):
            worse.append(candidate)
    return worse


def most_frequent_n(means: Iterable[Estimate]) -> int:
    """The n that most of the means with a value have; 0 without any."""
    counts = Counter(mean.n for mean in means if mean.known)
    if not counts:
        return 0
    [(n, _)] = counts.most_common(1)
    return n


def controls_with_value(results: Results, key: str, *, over_classes: bool = False) -> list[str]:
    """Controls that have a value of a measure."""
    return [name for name in results.controls if results.estimate(name, key, over_classes=over_classes).known]


def most_patients(results: Results, key: str) -> int:
    """The largest number of patients behind a paired difference of a measure; 0 if there is no difference."""
    most = 0
    for name in results.methods:
        for other in results.names:
            if other != name:
                most = max(most, results.difference(name, other, key).patients)
    return most


def reason_not_comparable(results: Results, key: str) -> str | None:
    """Reason why no method is called better or worse by a measure; None where methods may be compared.

    Example:
        >>> reason_not_comparable(Results("classification", ["Mass"], None, {}, {}, {}, {}, {}, {}), "road")
        'these results hold no paired differences'
    """
    patients = most_patients(results, key)
    if not patients:
        return "these results hold no paired differences"
    if patients < MIN_PATIENTS:
        unit = "patient" if patients == 1 else "patients"
        return f"{patients} {unit}, fewer than {MIN_PATIENTS}"
    return None


def best_name(values: Mapping[str, float], better: str | None) -> str:
    """Name with the largest value, or with the smallest where ``better`` is ``lower``; of equal ones the first.

    Example:
        >>> best_name({"IBA": 0.2, "LRP": 0.1}, "lower")
        'LRP'
    """
    if better == "lower":
        return min(values, key=values.__getitem__)
    return max(values, key=values.__getitem__)


def best_methods(results: Results, key: str, *, over_classes: bool = False) -> tuple[frozenset[str], bool]:
    """The methods with the best value, and whether they do better than every control.

    Of several with the same value, only those that do better than every control count, if there is one. There is no
    best method where nothing is better: without a direction, with too few patients, or where two or more methods have
    one and the same value and do not do better than the controls.
    """
    better = results.better(key)
    if better is None or reason_not_comparable(results, key):
        return frozenset(), False
    values = {}
    for name in results.methods:
        mean = results.estimate(name, key, over_classes=over_classes)
        if mean.known:
            values[name] = mean.value
    if not values:
        return frozenset(), False
    best_value = values[best_name(values, better)]
    best = [name for name, value in values.items() if value == best_value]
    controls = controls_with_value(results, key, over_classes=over_classes)
    above = _above_all(results, key, best, controls, over_classes=over_classes)
    if above:
        return frozenset(above), True
    if len(values) > 1 and len(best) == len(values):
        return frozenset(), False
    return frozenset(best), False


def _above_all(
    results: Results, key: str, methods: Iterable[str], controls: Sequence[str], *, over_classes: bool
) -> list[str]:
    """Methods that do better than every control; none without controls."""
    above = []
    for name in methods:
        worse = significantly_better_than(results, name, key, controls, over_classes=over_classes)
        if controls and worse == controls:
            above.append(name)
    return above
