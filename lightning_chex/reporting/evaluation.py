"""The results of an evaluation as tables and figures read them; ``results.json`` itself stays a plain dict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

REQUIRED = ("task", "class_names", "regions", "measures", "methods", "controls", "left_out", "protocol")

DETECTORS = ("severity_0_1", "severity_2", "severity_3")
"""Class names of the three BrixIA detectors."""

IOU_RULES = {
    "iou/top_fraction": "fixed share of pixels",
    "iou/otsu": "Otsu",
    "iou/tuned": "tuned per class",
    "iou/oracle": "oracle: upper bound, it has seen the region",
}
"""Measure -> short name of its threshold rule; the first one that was measured is the headline."""


@dataclass(frozen=True)
class Curve:
    """One measure along an axis for one method, as in ``curves.csv``.

    Attributes:
        method: the method's or control's name.
        name: ``insertion``, ``deletion``, ``sensitivity_n``, ``iou_at_level``, ``road_morf``, ``road_lerf``,
            ``relevance_by_score`` or ``randomization``.
        x: places on the axis, increasing.
        value: means; None or NaN where nothing was counted.
        ci_low: lower ends of the 95 % intervals.
        ci_high: upper ends.
        n: maps that count.

    Raises:
        ValueError: lists of different lengths.
    """

    method: str
    name: str
    x: Sequence[float]
    value: Sequence[float | None]
    ci_low: Sequence[float | None]
    ci_high: Sequence[float | None]
    n: Sequence[int]

    def __post_init__(self) -> None:
        lengths = {each: len(getattr(self, each)) for each in ("x", "value", "ci_low", "ci_high", "n")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"curve {self.name!r} of {self.method!r} has lists of different lengths: {lengths}")


@dataclass(frozen=True)
class ExampleRow:
    """One explained image with the maps of every method, for the page; all tensors on the CPU.

    Attributes:
        rank: which place the image takes in the order of ``ranked_by``'s IoU (or other measure).
        ranked_by: the method whose values chose the image.
        image: grey values in [0, 1], float (H, W).
        target_name: what is explained, for people.
        prediction: the model's probability of the class, or its score.
        truth: the label of the class, or the true score.
        maps: method or control -> map, float (H, W), any scale; negative values are drawn in blue.
        iou: method or control -> the IoU of its map; may be empty.
        boxes: expert boxes, (N, 4) x1, y1, x2, y2 in pixels; None without.
        region: the expert region, bool (H, W), filled; None without.
        zones: Brixia zones, bool (6, H, W); None without.
        scores: scores 0 to 3 of the zones; needed where there are zones.
        measure: what ``iou`` holds and the rank is by, for people.

    Raises:
        ValueError: an unknown rank, a shape that is not the image's, or zones without scores.
    """

    rank: Literal["best", "median", "worst"]
    ranked_by: str
    image: Tensor
    target_name: str
    prediction: float
    truth: float
    maps: Mapping[str, Tensor]
    iou: Mapping[str, float | None] = field(default_factory=dict)
    boxes: Tensor | None = None
    region: Tensor | None = None
    zones: Tensor | None = None
    scores: Sequence[float] | None = None
    measure: str = "IoU"

    def __post_init__(self) -> None:
        if self.rank not in ("best", "median", "worst"):
            raise ValueError(f"rank={self.rank!r} is unknown; choose best, median or worst")
        size = tuple(self.image.shape)
        drawn = {**self.maps, **{k: v for k, v in (("region", self.region),) if v is not None}}
        if self.zones is not None:
            if self.scores is None or len(self.scores) != len(self.zones):
                raise ValueError(f"scores={self.scores!r} do not match {len(self.zones)} zones: give one score a zone")
            drawn |= {f"zone {k}": zone for k, zone in enumerate(self.zones)}
        for name, each in drawn.items():
            if tuple(each.shape) != size:
                raise ValueError(f"{name!r} is {tuple(each.shape)}, but the image is {size}: resize it to the image")


@dataclass(frozen=True)
class Cell:
    """A mean with its 95 % interval by patient; None where there is none."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int

    @property
    def has_interval(self) -> bool:
        """Both ends are known."""
        return self.ci_low is not None and self.ci_high is not None


_EMPTY = Cell(None, None, None, 0)


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
        if not found:
            return _EMPTY
        value, low, high = (_number(found.get(part)) for part in ("value", "ci_low", "ci_high"))
        return Cell(value, low, high, int(found.get("n") or 0))

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


def clear_of(cell: Cell, other: Cell, better: str | None) -> bool:
    """Whether a value is better than another one with intervals that do not overlap.

    Example:
        >>> clear_of(Cell(0.3, 0.2, 0.4, 9), Cell(0.1, 0.05, 0.15, 9), "higher")
        True
        >>> clear_of(Cell(0.3, 0.2, 0.4, 9), Cell(0.1, None, None, 1), "higher")
        False
    """
    if cell.ci_low is None or cell.ci_high is None or other.ci_low is None or other.ci_high is None:
        return False
    if better == "higher":
        return cell.ci_low > other.ci_high
    return better == "lower" and cell.ci_high < other.ci_low


def beaten(
    results: Results, name: str, key: str, *, class_name: str | None = None, over_classes: bool = False
) -> list[str]:
    """Controls that a method does better than, intervals not overlapping."""
    of = {"class_name": class_name, "over_classes": over_classes}
    own = results.cell(name, key, **of)  # type: ignore[arg-type]
    return [
        control
        for control in results.controls
        if clear_of(own, results.cell(control, key, **of), results.better(key))  # type: ignore[arg-type]
    ]


def judged(results: Results, key: str, *, class_name: str | None = None, over_classes: bool = False) -> list[str]:
    """Controls that have a value of a measure."""
    of = {"class_name": class_name, "over_classes": over_classes}
    return [each for each in results.controls if results.cell(each, key, **of).value is not None]  # type: ignore[arg-type]


def best_method(
    results: Results, key: str, *, class_name: str | None = None, over_classes: bool = False
) -> tuple[str | None, bool]:
    """The method with the best value, and whether it does better than every control, intervals not overlapping.

    Where no control was measured, or nothing is better, it is None or not above.
    """
    of: dict[str, Any] = {"class_name": class_name, "over_classes": over_classes}
    sign = {"higher": 1.0, "lower": -1.0}.get(results.better(key) or "", 0.0)
    values = {name: results.cell(name, key, **of).value for name in results.methods}
    known = {name: sign * value for name, value in values.items() if value is not None}
    if not known or not sign:
        return None, False
    best = max(known, key=lambda name: known[name])
    controls = judged(results, key, **of)
    return best, bool(controls) and set(controls) == set(beaten(results, best, key, **of))


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
