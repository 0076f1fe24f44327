"""Which methods do better than which others, by paired differences on the same cases."""

from typing import Any

from lightning_chex.reporting.results import Cell, Results

MIN_PATIENTS = 30
"""Of fewer, an interval depends too much on who they happen to be: nothing is called better on their word."""


def clear_of_zero(difference: Cell, better: str | None) -> bool:
    """Whether a mean difference speaks for the first of the two: of enough patients, its interval on the better side.

    Example:
        >>> clear_of_zero(Cell(0.2, 0.1, 0.3, 99, patients=40), "higher")
        True
        >>> clear_of_zero(Cell(0.2, 0.1, 0.3, 99, patients=29), "higher")
        False
        >>> clear_of_zero(Cell(0.2, -0.1, 0.5, 99, patients=40), "higher")
        False
    """
    if (difference.patients or 0) < MIN_PATIENTS or difference.ci_low is None or difference.ci_high is None:
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


def judged(results: Results, key: str, *, over_classes: bool = False) -> list[str]:
    """Controls that have a value of a measure."""
    return [each for each in results.controls if results.cell(each, key, over_classes=over_classes).value is not None]


def most_patients(results: Results, key: str) -> int:
    """How many patients the best founded difference of a measure rests on; 0 where none was taken."""
    pairs = [(name, other) for name in results.methods for other in results.names if other != name]
    return max((results.difference(*pair, key).patients or 0 for pair in pairs), default=0)


def withheld(results: Results, key: str) -> str | None:
    """Why nothing is called better or worse by a measure; None where words are allowed.

    Example:
        >>> from lightning_chex.reporting.results import REQUIRED
        >>> withheld(Results({key: {} for key in REQUIRED}), "road")
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
    values = {name: results.cell(name, key, **of).value for name in results.methods}
    known = {name: sign * value for name, value in values.items() if value is not None}
    if not known or not sign or withheld(results, key):
        return frozenset(), False
    best = frozenset(name for name, value in known.items() if value == max(known.values()))
    controls = judged(results, key, **of)
    above = frozenset(name for name in best if controls and controls == beaten(results, name, key, controls, **of))
    if not above and len(best) == len(known) > 1:
        return frozenset(), False
    return above or best, bool(above)
