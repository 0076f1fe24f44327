"""The results of an evaluation as tables and figures read them; ``results.json`` itself stays a plain dict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED = ("task", "class_names", "regions", "measures", "methods", "controls", "left_out", "protocol")

DETECTORS = ("severity_0_1", "severity_2", "severity_3")
"""Class names of the three BrixIA detectors."""

IOU_RULES = {
    "iou/fixed_share": "fixed share of pixels",
    "iou/otsu": "Otsu",
    "iou/tuned": "tuned per class",
    "iou/oracle": "oracle (upper bound)",
}
"""Measure -> short name of its threshold rule; the first one that was measured is the headline."""


@dataclass(frozen=True)
class Cell:
    """A mean with its 95 % interval by patient, and how many these are; None where it is unknown."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    patients: int | None = None

    @property
    def has_interval(self) -> bool:
        """Both ends are known."""
        return self.ci_low is not None and self.ci_high is not None

    @property
    def negative(self) -> "Cell":
        """The same of the negative values."""
        value, low, high = (None if end is None else -end for end in (self.value, self.ci_high, self.ci_low))
        return Cell(value, low, high, self.n, self.patients)


_EMPTY = Cell(None, None, None, 0)


def _cell(found: Mapping[str, Any] | None) -> Cell:
    if not found:
        return _EMPTY
    value, low, high = (_number(found.get(part)) for part in ("value", "ci_low", "ci_high"))
    return Cell(value, low, high, int(found.get("n") or 0), found.get("patients"))


class Results:
    """Reading glasses for the dict of ``results.json``.

    Args:
        results: as documented for ``results.json``.

    Raises:
        ValueError: a part is missing.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        missing = [key for key in REQUIRED if key not in results]
        if missing:
            raise ValueError(
                f"results lacks {', '.join(missing)}: give the dict of results.json, which holds all of them"
            )
        self.task: str = results["task"]
        self.class_names: list[str] = list(results["class_names"] or [])
        self.regions: str | None = results["regions"]
        self.measures: Mapping[str, Mapping[str, Any]] = results["measures"]
        self.left_out: Mapping[str, str] = results["left_out"] or {}
        self.protocol: Mapping[str, Any] = results["protocol"] or {}
        self.methods: list[str] = list(results["methods"])
        self.controls: list[str] = [name for name in results["controls"] or {} if name not in results["methods"]]
        self._estimates = {**(results["controls"] or {}), **results["methods"]}
        self._differences = {
            (key, pair["method"], pair["other"]): pair
            for key, pairs in (results.get("differences") or {}).items()
            for pair in pairs
        }

    @property
    def names(self) -> list[str]:
        """Methods, then controls."""
        return [*self.methods, *self.controls]

    @property
    def detectors(self) -> bool:
        """The classes are the three BrixIA detectors."""
        return tuple(self.class_names) == DETECTORS

    @property
    def unit(self) -> str:
        """What a value of the localisation measures belongs to."""
        return {"boxes": "boxes", "masks": "masks", "zones": "maps"}.get(self.regions or "", "maps")

    def cell(self, name: str, key: str, *, class_name: str | None = None, over_classes: bool = False) -> Cell:
        """The mean over maps, over classes, or of one class; empty where it was not measured."""
        found: Mapping[str, Any] | None = (self._estimates[name] or {}).get(key)
        if found and over_classes:
            found = found.get("class_mean")
        elif found and class_name is not None:
            found = (found.get("per_class") or {}).get(class_name)
        return _cell(found)

    def difference(self, name: str, other: str, key: str, *, over_classes: bool = False) -> Cell:
        """The mean of ``name`` less ``other`` on the cases of both, over maps or classes; empty where it is unknown."""
        for pair, sign in (((key, name, other), 1), ((key, other, name), -1)):
            found = self._differences.get(pair)
            if found is not None:
                cell = _cell(found.get("class_mean") if over_classes else found)
                return cell if sign == 1 else cell.negative
        return _EMPTY

    def has(self, key: str, *, class_name: str | None = None, over_classes: bool = False) -> bool:
        """Whether any method or control has a value."""
        cells = (self.cell(name, key, class_name=class_name, over_classes=over_classes) for name in self.names)
        return any(cell.value is not None for cell in cells)

    def keys(self, *prefixes: str) -> list[str]:
        """Measures with a value whose key is one of ``prefixes`` or begins with one and a slash."""
        used = dict.fromkeys([*self.measures, *(key for name in self.names for key in self._estimates[name] or {})])
        return [key for p in prefixes for key in used if (key == p or key.startswith(f"{p}/")) and self.has(key)]

    def title(self, key: str) -> str:
        """The measure's name, for people."""
        return str(self.measures.get(key, {}).get("title") or key)

    def better(self, key: str) -> str | None:
        """``higher``, ``lower`` or None."""
        return self.measures.get(key, {}).get("better")

    @property
    def headline(self) -> str | None:
        """The IoU the outcome is told by: that of the first threshold rule measured, the oracle never."""
        return next((key for key in list(IOU_RULES)[:-1] if self.has(key)), None)


def number(value: float | None) -> str:
    """A value for people: three decimals, fewer for large numbers, a dash for none.

    Example:
        >>> number(0.0754), number(-0.5), number(12.345), number(float("nan"))
        ('0.075', '−0.500', '12.35', '–')
    """
    value = _number(value)
    if value is None:
        return "–"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0
    words = f"{value:,.{digits}f}"
    # what rounds to zero has no sign
    return words.lstrip("-") if not any(c in words for c in "123456789") else words.replace("-", "−")


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
