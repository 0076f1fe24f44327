"""Which methods do better than which controls."""

from typing import Any

from lightning_chex.reporting.results import Cell, Results

MIN_PATIENTS = 10
"""A bootstrap over fewer is too narrow by far: nothing is called better on their word."""


def clear_of(cell: Cell, other: Cell, better: str | None) -> bool:
    """Whether a value is better than another one: intervals of enough patients that do not overlap.

    Example:
        >>> clear_of(Cell(0.3, 0.2, 0.4, 9), Cell(0.1, 0.05, 0.15, 9), "higher")
        True
        >>> clear_of(Cell(0.3, 0.2, 0.4, 9), Cell(0.1, None, None, 1), "higher")
        False
        >>> clear_of(Cell(0.3, 0.2, 0.4, 9, patients=5), Cell(0.1, 0.05, 0.15, 9, patients=5), "higher")
        False
    """
    if any(each.patients is not None and each.patients < MIN_PATIENTS for each in (cell, other)):
        return False
    if cell.ci_low is None or cell.ci_high is None or other.ci_low is None or other.ci_high is None:
        return False
    if better == "higher":
        return cell.ci_low > other.ci_high
    return better == "lower" and cell.ci_high < other.ci_low


def beaten(
    results: Results, name: str, key: str, *, class_name: str | None = None, over_classes: bool = False
) -> list[str]:
    """Controls that a method does better than, intervals not overlapping."""
    of: dict[str, Any] = {"class_name": class_name, "over_classes": over_classes}
    own = results.cell(name, key, **of)
    return [
        control for control in results.controls if clear_of(own, results.cell(control, key, **of), results.better(key))
    ]


def judged(results: Results, key: str, *, class_name: str | None = None, over_classes: bool = False) -> list[str]:
    """Controls that have a value of a measure."""
    of: dict[str, Any] = {"class_name": class_name, "over_classes": over_classes}
    return [each for each in results.controls if results.cell(each, key, **of).value is not None]


def best_method(
    results: Results, key: str, *, class_name: str | None = None, over_classes: bool = False
) -> tuple[frozenset[str], bool]:
    """The methods with the best value, and whether they do better than every control, intervals not overlapping.

    Of several that are equally good, only those above every control count if any is. There is none where nothing is
    better: without a direction, or where all of two or more methods are equal and not above.
    """
    of: dict[str, Any] = {"class_name": class_name, "over_classes": over_classes}
    sign = {"higher": 1.0, "lower": -1.0}.get(results.better(key) or "", 0.0)
    values = {name: results.cell(name, key, **of).value for name in results.methods}
    known = {name: sign * value for name, value in values.items() if value is not None}
    if not known or not sign:
        return frozenset(), False
    best = frozenset(name for name, value in known.items() if value == max(known.values()))
    controls = judged(results, key, **of)
    above = frozenset(name for name in best if controls and controls == beaten(results, name, key, **of))
    if not above and len(best) == len(known) > 1:
        return frozenset(), False
    return above or best, bool(above)
