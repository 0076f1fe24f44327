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
    """One measure of a map: its meaning, and where the page, the terminal and loggers show it.

    All measures are numbers without a unit, or in the unit of the network's output.

    Attributes:
        title: its name for people.
        better: ``higher``, ``lower``, or None where neither is better.
        group: the table of a logger that holds it: ``localization``, ``severity``, ``perturbation``, ``randomization``
            or ``further``.
        explanation: one or two sentences for readers of the page.
        statistic: the summary over maps: their mean, with an interval, or their median.
        range: the least and the greatest possible value; None where there is no such bound. Intervals of a share, from
            0 to 1, are cut at these bounds.
        table: the table of the page that holds it, see ``TABLES`` in ``report/page/page.py``; others are under "Further
            measures".
        heading: of its column on the page; empty for the title.
        heading_group: a heading above neighbouring columns that share it.
        terminal: heading of its column in the terminal; empty to leave it out there.
        outcome: its name in the page's first sentences; empty to leave it out there.
        threshold_rule: name of the rule that binarises the maps, for an IoU; empty for other measures.
        headline: the IoU may sum up localisation; the first such measure with a value does.
        comparable: the best method is marked. False where the controls' values are no reference, as in the sanity
            checks: a control does not depend on the network.
        compared: it has a table of paired differences on the page.
        ranks_examples: it may decide which images are shown as examples; the first such measure with a value does.
    """

    title: str
    better: Literal["higher", "lower"] | None
    group: str
    explanation: str
    statistic: Literal["mean", "median"] = "mean"
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
        """Read one entry of ``measures`` in ``results.json``.

        Fields that the version of the file did not write have defaults; fields that only other versions have are
        ignored.
        """
        fields = {name: value for name, value in content.items() if name in cls.__dataclass_fields__}
        low, high = content.get("range") or (None, None)
        fields["range"] = (low, high)
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``measures`` in ``results.json``."""
        # the fields of this class alone: a subclass adds the function that computes the measure
        return {name: getattr(self, name) for name in Measure.__dataclass_fields__}


@dataclass(frozen=True)
class Curve:
    """One measure along an axis for one method, as in ``curves.csv``.

    Attributes:
        method: the method's or control's name.
        name: ``insertion``, ``deletion``, ``sensitivity_n``, ``iou_at_level``, ``road_morf``, ``road_lerf``,
            ``relevance_by_score`` or ``randomization``.
        x: positions on the axis, increasing.
        means: one for each position.

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
                f"curve {self.name!r} of {self.method!r} has {len(self.x)} positions and {len(self.means)} means"
            )


@dataclass(frozen=True)
class Results:
    """All means of an evaluation, the differences between methods, and the protocol: content of ``results.json``.

    Attributes:
        task: of the model.
        class_names: of the model's outputs; empty for a score.
        regions: the regions that maps were compared with: ``boxes``, ``masks`` or ``zones``; None without any.
        measures: key -> declaration of the measure.
        methods: method -> key of the measure -> its summary.
        controls: the same for the controls.
        differences: key of the measure -> (method, other method or control) -> the first minus the second, on the cases
            that both have.
        left_out: method that could not be evaluated -> reason.
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
        """Read the content of ``results.json``; in an earlier version, differences and descriptions may be missing.

        Raises:
            ValueError: another part is missing.
        """
        required = [name for name in cls.__dataclass_fields__ if name not in ("differences", "descriptions")]
        missing = [name for name in required if name not in content]
        if missing:
            raise ValueError(
                f"results lacks {', '.join(missing)}: give the content of results.json, which holds all of them"
            )
        class_names = list(content["class_names"] or [])
        measures = {key: Measure.from_json(measure) for key, measure in content["measures"].items()}
        descriptions = {}
        for name, description in (content.get("descriptions") or {}).items():
            descriptions[name] = MethodDescription(**description)
        return cls(
            task=content["task"],
            class_names=class_names,
            regions=content["regions"],
            measures=measures,
            methods=_read_summaries(content["methods"], class_names),
            controls=_read_summaries(content["controls"] or {}, class_names),
            differences=_read_differences(content.get("differences") or {}, class_names),
            left_out=content["left_out"] or {},
            protocol=content["protocol"] or {},
            descriptions=descriptions,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``results.json``, with None in place of NaN."""
        return without_nan(
            {
                "task": self.task,
                "class_names": list(self.class_names),
                "regions": self.regions,
                "measures": {key: measure.to_json() for key, measure in self.measures.items()},
                "methods": self._summaries_to_json(self.methods),
                "controls": self._summaries_to_json(self.controls),
                "differences": self._differences_to_json(),
                "left_out": dict(self.left_out),
                "protocol": dict(self.protocol),
                "descriptions": {name: asdict(description) for name, description in self.descriptions.items()},
            }
        )

    def _summaries_to_json(self, methods: Mapping[str, Mapping[str, Summary]]) -> dict[str, dict[str, Any]]:
        """Method -> key of the measure -> summary, as plain values."""
        content: dict[str, dict[str, Any]] = {}
        for name, summaries in methods.items():
            content[name] = {key: summary_to_json(summary, self.class_names) for key, summary in summaries.items()}
        return content

    def _differences_to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Key of the measure -> its paired differences, as plain values."""
        content: dict[str, list[dict[str, Any]]] = {}
        for key, pairs in self.differences.items():
            content[key] = []
            for (method, other), summary in pairs.items():
                pair = {"method": method, "other": other}
                content[key].append(pair | summary_to_json(summary, self.class_names))
        return content

    @property
    def names(self) -> list[str]:
        """Names of the methods, then of the controls."""
        return [*self.methods, *self.controls]

    @property
    def has_detectors(self) -> bool:
        """Whether the classes are the three BrixIA detectors."""
        return tuple(self.class_names) == DETECTORS

    @property
    def headline(self) -> str | None:
        """Key of the IoU that sums up localisation: of the first threshold rule measured, never of the oracle."""
        for key, measure in self.measures.items():
            if measure.headline and self.has(key):
                return key
        return None

    @property
    def threshold_rules(self) -> dict[str, str]:
        """Key of each IoU that has a value -> name of its threshold rule."""
        rules = {}
        for key, measure in self.measures.items():
            if measure.threshold_rule and self.has(key):
                rules[key] = measure.threshold_rule
        return rules

    def estimate(self, name: str, key: str, *, class_name: str | None = None, over_classes: bool = False) -> Estimate:
        """Return a mean of a method or control; ``UNKNOWN`` where it was not measured.

        Args:
            name: of the method or control.
            key: of the measure.
            class_name: of the class whose mean to return; None for the mean over all maps.
            over_classes: return the mean over classes.
        """
        summaries = self.methods[name] if name in self.methods else self.controls[name]
        summary = summaries.get(key)
        if summary is None:
            return UNKNOWN
        return select_estimate(summary, self.class_names, class_name=class_name, over_classes=over_classes)

    def difference(self, name: str, other: str, key: str, *, over_classes: bool = False) -> Estimate:
        """Mean of ``name`` minus ``other`` on the cases that both have; ``UNKNOWN`` without any.

        Args:
            name: of a method or control.
            other: of another one.
            key: of the measure.
            over_classes: return the mean over classes, not over maps.
        """
        pairs = self.differences.get(key, {})
        # each pair is on record once, in one of the two orders
        if (name, other) in pairs:
            return select_estimate(pairs[name, other], self.class_names, over_classes=over_classes)
        if (other, name) in pairs:
            return -select_estimate(pairs[other, name], self.class_names, over_classes=over_classes)
        return UNKNOWN

    def description(self, name: str) -> MethodDescription:
        """Return the description of a method or control; of an unknown one its name alone."""
        return self.descriptions.get(name) or MethodDescription(name)

    def has(self, key: str, *, class_name: str | None = None, over_classes: bool = False) -> bool:
        """Return whether any method or control has a value of a measure; for the arguments see `estimate`."""
        for name in self.names:
            if self.estimate(name, key, class_name=class_name, over_classes=over_classes).known:
                return True
        return False

    def keys_with_value(self, table: str | None = None) -> list[str]:
        """Keys of the measures with a value, in the order of their declaration.

        Args:
            table: of the page, to return only its measures; None for all.
        """
        # a dictionary keeps the order, a set would not; files of earlier versions may hold undeclared measures
        keys = dict.fromkeys(self.measures)
        for methods in (self.methods, self.controls):
            for summaries in methods.values():
                keys |= dict.fromkeys(summaries)
        return [key for key in keys if (table is None or self.measure(key).table == table) and self.has(key)]

    def keys_shown_in(self, place: Literal["terminal", "outcome", "compared"]) -> list[str]:
        """Keys of the measures with a value that are declared for a place.

        Of the IoUs by several threshold rules only the headline is shown there.

        Args:
            place: attribute of `Measure` that is not empty for these measures.
        """
        headline = self.headline
        keys = []
        for key in self.keys_with_value():
            measure = self.measure(key)
            if getattr(measure, place) and (key == headline or not measure.threshold_rule):
                keys.append(key)
        return keys

    def measure(self, key: str) -> Measure:
        """Return the declaration of a measure; an undeclared one has its key as title."""
        return self.measures.get(key) or Measure(title=key, better=None, group="", explanation="")

    def title(self, key: str) -> str:
        """Title of a measure."""
        return self.measure(key).title or key

    def better(self, key: str) -> str | None:
        """Direction of a measure: ``higher``, ``lower`` or None."""
        return self.measure(key).better


def select_estimate(
    summary: Summary, class_names: Sequence[str], *, class_name: str | None = None, over_classes: bool = False
) -> Estimate:
    """Return the mean over maps, over classes or of one class; ``UNKNOWN`` if the summary has none.

    Args:
        summary: of one measure.
        class_names: of all classes, in the order of ``summary.per_class``.
        class_name: of the class whose mean to return; None for the mean over all maps.
        over_classes: return the mean over classes.
    """
    if over_classes:
        return summary.class_mean or UNKNOWN
    if class_name is None:
        return summary.mean
    if not summary.per_class:
        return UNKNOWN
    return summary.per_class[class_names.index(class_name)]


def _read_summaries(
    content: Mapping[str, Mapping[str, Any] | None], class_names: Sequence[str]
) -> dict[str, dict[str, Summary]]:
    """Read ``methods`` or ``controls``: name -> key of the measure -> its summary."""
    methods: dict[str, dict[str, Summary]] = {}
    for name, summaries in content.items():
        methods[name] = {}
        for key, summary in (summaries or {}).items():
            if summary:
                methods[name][key] = _read_summary(summary, class_names)
    return methods


def _read_differences(
    content: Mapping[str, Sequence[Mapping[str, Any]]], class_names: Sequence[str]
) -> dict[str, dict[tuple[str, str], Summary]]:
    """Read ``differences``: key of the measure -> (method, other) -> summary."""
    differences: dict[str, dict[tuple[str, str], Summary]] = {}
    for key, pairs in content.items():
        differences[key] = {}
        for pair in pairs:
            differences[key][pair["method"], pair["other"]] = _read_summary(pair, class_names)
    return differences


def _read_summary(content: Mapping[str, Any], class_names: Sequence[str]) -> Summary:
    class_mean = None
    if content.get("class_mean"):
        class_mean = _read_estimate(content["class_mean"])
    per_class: list[Estimate] = []
    if content.get("per_class"):
        # classes without a value are not in the file
        per_class = [_read_estimate(content["per_class"].get(name) or {}) for name in class_names]
    return Summary(_read_estimate(content), class_mean, tuple(per_class))


def _read_estimate(content: Mapping[str, Any]) -> Estimate:
    numbers = []
    for name in ("value", "ci_low", "ci_high"):
        number = content.get(name)
        numbers.append(math.nan if number is None else float(number))
    value, low, high = numbers
    return Estimate(value, low, high, content.get("n") or 0, content.get("patients") or 0)


def summary_to_json(summary: Summary, class_names: Sequence[str]) -> dict[str, Any]:
    """Return a summary as plain values.

    Args:
        summary: of one measure.
        class_names: of all classes.

    Returns:
        The mean with its interval; below ``class_mean`` the mean over classes, below ``per_class`` the mean of each
        class that has a value.
    """
    content = asdict(summary.mean)
    if summary.class_mean is not None:
        content["class_mean"] = asdict(summary.class_mean)
    if summary.per_class:
        content["per_class"] = {}
        for name, estimate in zip(class_names, summary.per_class, strict=True):
            if estimate.n:
                content["per_class"][name] = asdict(estimate)
    return content


def without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by None, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, (float, np.floating)) and math.isnan(value):
        return None
    return value


def format_number(value: float | None) -> str:
    """Format a value for people: three decimals, fewer for large numbers, a dash for no value.

    Example:
        >>> format_number(0.0754), format_number(-0.5), format_number(12.345), format_number(float("nan"))
        ('0.075', '−0.500', '12.35', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.{_decimals(abs(value))}f}"
    if not any(digit in text for digit in "123456789"):
        # a value that rounds to zero has no sign
        return text.lstrip("-")
    return text.replace("-", "−")


def _decimals(size: float) -> int:
    if size < 10:
        return 3
    if size < 100:
        return 2
    return 0
