"""The results of an evaluation, typed, and their form in ``results.json``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lightning_chex.class_names import DETECTORS
from lightning_chex.estimates import UNKNOWN, Estimate, Summary

IOU_RULES = {
    "iou/fixed_share": "fixed share of pixels",
    "iou/otsu": "Otsu",
    "iou/tuned": "tuned per class",
    "iou/oracle": "oracle (upper bound)",
}
"""Measure -> short name of its threshold rule; the first one that was measured is the headline."""


@dataclass(frozen=True)
class Measure:
    """One measure of a map.

    Attributes:
        title: its name for people.
        better: which way is better; None where neither is.
        group: ``localization``, ``perturbation``, ``severity`` or ``sanity``.
        explanation: what it says, in a sentence.
        statistic: what is told of its values over maps: their mean, with an interval, or their median.
    """

    title: str
    better: Literal["higher", "lower"] | None
    group: str
    explanation: str
    statistic: Literal["mean", "median"] = "mean"


@dataclass(frozen=True)
class Curve:
    """One measure along an axis for one method, as in ``curves.csv``.

    Attributes:
        method: the method's or control's name.
        name: ``insertion``, ``deletion``, ``sensitivity_n``, ``iou_at_level``, ``road_morf``, ``road_lerf``,
            ``relevance_by_score`` or ``randomization``.
        x: places on the axis, increasing.
        means: one for each place.

    Raises:
        ValueError: ``x`` and ``means`` differ in length.
    """

    method: str
    name: str
    x: Sequence[float]
    means: Sequence[Estimate]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.means):
            raise ValueError(
                f"curve {self.name!r} of {self.method!r} has {len(self.x)} places and {len(self.means)} means"
            )


@dataclass(frozen=True)
class Results:
    """All means of an evaluation, with the differences between methods and how they were obtained.

    Attributes:
        task: of the model.
        class_names: of the model's outputs; empty for a score.
        regions: what maps were judged by: ``boxes``, ``masks`` or ``zones``; None for nothing.
        measures: key -> what the measure is.
        methods: method -> key of the measure -> its values.
        controls: the same for the controls.
        differences: key of the measure -> (method, other method or control) -> the first less the second, on the cases
            of both.
        left_out: method that could not be evaluated -> why.
        protocol: data, model, settings and versions, in plain values.
    """

    task: Literal["classification", "regression"]
    class_names: Sequence[str]
    regions: str | None
    measures: Mapping[str, Measure]
    methods: Mapping[str, Mapping[str, Summary]]
    controls: Mapping[str, Mapping[str, Summary]]
    differences: Mapping[str, Mapping[tuple[str, str], Summary]]
    left_out: Mapping[str, str]
    protocol: Mapping[str, Any]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Results":
        """Read what ``results.json`` holds; of an earlier version, the paired differences may be missing.

        Raises:
            ValueError: another part is missing.
        """
        parts = [name for name in cls.__dataclass_fields__ if name != "differences"]
        missing = [name for name in parts if name not in content]
        if missing:
            raise ValueError(
                f"results lacks {', '.join(missing)}: give the content of results.json, which holds all of them"
            )
        names = list(content["class_names"] or [])

        def by_key(found: Mapping[str, Any] | None) -> dict[str, Summary]:
            return {key: _read_summary(own, names) for key, own in (found or {}).items() if own}

        return cls(
            task=content["task"],
            class_names=names,
            regions=content["regions"],
            measures={key: Measure(**own) for key, own in content["measures"].items()},
            methods={name: by_key(own) for name, own in content["methods"].items()},
            controls={name: by_key(own) for name, own in (content["controls"] or {}).items()},
            differences={
                key: {(pair["method"], pair["other"]): _read_summary(pair, names) for pair in pairs}
                for key, pairs in (content.get("differences") or {}).items()
            },
            left_out=content["left_out"] or {},
            protocol=content["protocol"] or {},
        )

    def to_json(self) -> dict[str, Any]:
        """Return what ``results.json`` holds, None in place of NaN."""
        means = {
            part: {
                name: {key: summary_to_json(summary, self.class_names) for key, summary in own.items()}
                for name, own in found.items()
            }
            for part, found in (("methods", self.methods), ("controls", self.controls))
        }
        differences = {
            key: [
                {"method": method, "other": other, **summary_to_json(summary, self.class_names)}
                for (method, other), summary in pairs.items()
            ]
            for key, pairs in self.differences.items()
        }
        return without_nan(
            {
                "task": self.task,
                "class_names": list(self.class_names),
                "regions": self.regions,
                "measures": {key: asdict(measure) for key, measure in self.measures.items()},
                **means,
                "differences": differences,
                "left_out": dict(self.left_out),
                "protocol": dict(self.protocol),
            }
        )

    @property
    def names(self) -> list[str]:
        """Methods, then controls."""
        return [*self.methods, *self.controls]

    @property
    def detectors(self) -> bool:
        """Whether the classes are the three BrixIA detectors."""
        return tuple(self.class_names) == DETECTORS

    @property
    def headline(self) -> str | None:
        """The IoU that sums up localisation: that of the first threshold rule measured, never the oracle's."""
        return next((key for key in list(IOU_RULES)[:-1] if self.has(key)), None)

    def estimate(self, name: str, key: str, *, class_name: str | None = None, over_classes: bool = False) -> Estimate:
        """The mean over maps, over classes, or of one class; ``UNKNOWN`` where it was not measured."""
        summary = (self.methods[name] if name in self.methods else self.controls[name]).get(key)
        if summary is None:
            return UNKNOWN
        if over_classes:
            return summary.class_mean or UNKNOWN
        if class_name is not None:
            return summary.per_class[self.class_names.index(class_name)] if summary.per_class else UNKNOWN
        return summary.mean

    def difference(self, name: str, other: str, key: str, *, over_classes: bool = False) -> Estimate:
        """The mean of ``name`` less ``other`` on the cases of both, over maps or classes; ``UNKNOWN`` without any."""
        pairs = self.differences.get(key, {})
        for pair, reverse in (((name, other), False), ((other, name), True)):
            if pair in pairs:
                found = (pairs[pair].class_mean or UNKNOWN) if over_classes else pairs[pair].mean
                return -found if reverse else found
        return UNKNOWN

    def has(self, key: str, *, class_name: str | None = None, over_classes: bool = False) -> bool:
        """Whether any method or control has a value."""
        return any(
            self.estimate(name, key, class_name=class_name, over_classes=over_classes).known for name in self.names
        )

    def keys(self, *prefixes: str) -> list[str]:
        """Measures with a value whose key is one of ``prefixes`` or begins with one and a slash."""
        found = [own for part in (self.methods, self.controls) for own in part.values()]
        used = dict.fromkeys(key for own in (self.measures, *found) for key in own)
        return [key for p in prefixes for key in used if (key == p or key.startswith(f"{p}/")) and self.has(key)]

    def title(self, key: str) -> str:
        """The measure's name, for people."""
        return (self.measures[key].title if key in self.measures else "") or key

    def better(self, key: str) -> str | None:
        """``higher``, ``lower`` or None."""
        return self.measures[key].better if key in self.measures else None


def _read_summary(found: Mapping[str, Any], class_names: Sequence[str]) -> Summary:
    class_mean, per_class = found.get("class_mean"), found.get("per_class")
    return Summary(
        _read_estimate(found),
        _read_estimate(class_mean) if class_mean else None,
        tuple(_read_estimate(per_class.get(name) or {}) for name in class_names) if per_class else (),
    )


def _read_estimate(found: Mapping[str, Any]) -> Estimate:
    value, low, high = (
        math.nan if found.get(part) is None else float(found[part]) for part in ("value", "ci_low", "ci_high")
    )
    return Estimate(value, low, high, found.get("n") or 0, found.get("patients") or 0)


def summary_to_json(summary: Summary, class_names: Sequence[str]) -> dict[str, Any]:
    """The mean with its interval, and below ``class_mean`` and ``per_class`` those of the classes that occur."""
    made = asdict(summary.mean)
    if summary.class_mean is not None:
        made["class_mean"] = asdict(summary.class_mean)
    if summary.per_class:
        pairs = zip(class_names, summary.per_class, strict=True)
        made["per_class"] = {name: asdict(estimate) for name, estimate in pairs if estimate.n}
    return made


def without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by None, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(own) for own in value]
    if isinstance(value, (float, np.floating)) and math.isnan(value):
        return None
    return value


def number(value: float | None) -> str:
    """A value for people: three decimals, fewer for large numbers, a dash for none.

    Example:
        >>> number(0.0754), number(-0.5), number(12.345), number(float("nan"))
        ('0.075', '−0.500', '12.35', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0
    words = f"{value:,.{digits}f}"
    # what rounds to zero has no sign
    return words.lstrip("-") if not any(c in words for c in "123456789") else words.replace("-", "−")
