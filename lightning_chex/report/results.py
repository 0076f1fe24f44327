"""The results of an evaluation, typed, and their form in ``results.json``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from lightning_chex.attribution.description import MethodDescription
from lightning_chex.class_names import DETECTORS
from lightning_chex.estimates import UNKNOWN, Estimate, Summary


@dataclass(frozen=True)
class Measure:
    """One measure of a map: what it means, and where the page, the terminal and loggers show it.

    Attributes:
        title: its name for people.
        better: ``higher``, ``lower``, or None where neither is better.
        group: the table of a logger that holds it, and what it is about: ``localization``, ``severity``,
            ``perturbation``, ``randomization`` or ``further``.
        explanation: one or two sentences for readers of the page.
        statistic: the summary over maps: their mean, with an interval, or their median.
        unit: of its values; empty for a number without one.
        range: the least and the greatest possible value; None where there is no such end. Intervals of a share, from 0
            to 1, end there too.
        table: the table of the page that holds it, see ``report/sections.py``; others are under "Further measures".
        heading: of its column on the page; empty for the title.
        heading_group: a heading above neighbouring columns that share it.
        terminal: heading of its column in the terminal; empty to leave it out there.
        outcome: its name in the page's first sentences; empty to leave it out there.
        threshold_rule: name of the rule that cuts the maps, for an IoU; empty for other measures.
        headline: the IoU may sum up localisation; the first such measure with a value does.
        comparable: the best method is marked. False where the controls' values are no reference, as in checks whether
            maps depend on the network, which a control ignores.
        compared: it has a table of paired differences on the page.
        ranks_examples: it may decide which images are shown as examples; the first such measure with a value does.
    """

    title: str
    better: Literal["higher", "lower"] | None
    group: str
    explanation: str
    statistic: Literal["mean", "median"] = "mean"
    unit: str = ""
    range: tuple[float | None, float | None] = (None, None)
    table: str = ""
    heading: str = ""
    heading_group: str = ""
    terminal: str = ""
    outcome: str = ""
    threshold_rule: str = ""
    headline: bool = False
    comparable: bool = True
    compared: bool = False
    ranks_examples: bool = False

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Measure":
        """Read one entry of ``measures`` in ``results.json``; what an earlier version did not write has defaults."""
        low, high = content.get("range") or (None, None)
        return cls(**{**content, "range": (low, high)})

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``measures`` in ``results.json``."""
        return {name: getattr(self, name) for name in Measure.__dataclass_fields__}


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
        descriptions: method or control -> its title, colour and description.
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
    descriptions: Mapping[str, MethodDescription] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Results":
        """Read what ``results.json`` holds; of an earlier version, differences and descriptions may be missing.

        Raises:
            ValueError: another part is missing.
        """
        parts = [name for name in cls.__dataclass_fields__ if name not in ("differences", "descriptions")]
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
            measures={key: Measure.from_json(measure) for key, measure in content["measures"].items()},
            methods={name: by_key(own) for name, own in content["methods"].items()},
            controls={name: by_key(own) for name, own in (content["controls"] or {}).items()},
            differences={
                key: {(pair["method"], pair["other"]): _read_summary(pair, names) for pair in pairs}
                for key, pairs in (content.get("differences") or {}).items()
            },
            left_out=content["left_out"] or {},
            protocol=content["protocol"] or {},
            descriptions={
                name: MethodDescription(**description)
                for name, description in (content.get("descriptions") or {}).items()
            },
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
                "measures": {key: measure.to_json() for key, measure in self.measures.items()},
                **means,
                "differences": differences,
                "left_out": dict(self.left_out),
                "protocol": dict(self.protocol),
                "descriptions": {name: asdict(description) for name, description in self.descriptions.items()},
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
        return next((key for key, measure in self.measures.items() if measure.headline and self.has(key)), None)

    @property
    def threshold_rules(self) -> dict[str, str]:
        """The measures of overlap that have a value -> the names of their threshold rules."""
        rules = {key: measure.threshold_rule for key, measure in self.measures.items()}
        return {key: rule for key, rule in rules.items() if rule and self.has(key)}

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

    def description(self, name: str) -> MethodDescription:
        """Return the description of a method or control; of an unknown one its name alone."""
        return self.descriptions.get(name) or MethodDescription(name)

    def has(self, key: str, *, class_name: str | None = None, over_classes: bool = False) -> bool:
        """Whether any method or control has a value."""
        return any(
            self.estimate(name, key, class_name=class_name, over_classes=over_classes).known for name in self.names
        )

    def measured(self, table: str | None = None) -> list[str]:
        """Measures with a value, in the order of their declaration; with ``table``, those of this table of the page."""
        found = [measures for part in (self.methods, self.controls) for measures in part.values()]
        used = dict.fromkeys(key for measures in (self.measures, *found) for key in measures)
        return [key for key in used if (table is None or self.measure(key).table == table) and self.has(key)]

    def keys_with(self, use: Literal["terminal", "outcome", "compared"]) -> list[str]:
        """Measures with a value that are declared for this use; of several threshold rules the headline's alone."""
        headline = self.headline
        return [
            key
            for key in self.measured()
            if getattr(self.measure(key), use) and (key == headline or not self.measure(key).threshold_rule)
        ]

    def measure(self, key: str) -> Measure:
        """Return the declaration of a measure; one that only its values mention has its key for a title."""
        return self.measures.get(key) or Measure(title=key, better=None, group="", explanation="")

    def title(self, key: str) -> str:
        """The measure's name, for people."""
        return self.measure(key).title or key

    def better(self, key: str) -> str | None:
        """``higher``, ``lower`` or None."""
        return self.measure(key).better


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
