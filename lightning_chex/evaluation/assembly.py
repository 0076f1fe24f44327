"""The records of all methods put together: means with bootstrap intervals by patient, differences and curves."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from lightning_chex.attribution import NOT_CONVERGED
from lightning_chex.evaluation.localization import LEVELS
from lightning_chex.evaluation.measures import MEASURES, ComputedMeasure
from lightning_chex.evaluation.records import Records
from lightning_chex.evaluation.summaries import UNBOUNDED, CaseSummaries, ExplainedCase, all_nan
from lightning_chex.maps import Key
from lightning_chex.metrics import Estimate, Summary, mask_sizes, tuned_levels
from lightning_chex.report import Curve

CaseRecord = dict[str, dict[str, Any]]
"""``values``: measure -> value of one case; ``curves``: curve -> its values."""

Row = dict[str, Any]
"""Row of ``per_image.csv``: column -> cell."""

PARTS = ("localization", "perturbation", "randomization", "label_randomization")
"""Parts of the records that hold values of the reported cases."""

_CURVES_WITH_AXIS = ("insertion", "deletion", "road_morf", "road_lerf", "randomization")
"""Curves whose axis is recorded beside them, as ``NAME_share``."""


class _Point(NamedTuple):
    """The values at one position of a curve's axis, with the patient of each value."""

    x: float
    values: Sequence[float]
    patients: Sequence[str]


@dataclass
class Assembly:
    """Results of the reported cases, from the records of all methods.

    Args:
        records: the measured values.
        methods: names of the methods.
        controls: names of the controls.
        summaries: of the reported cases.
        tuning: the cases thresholds are tuned on, of other images; none leaves out the rule ``tuned``.
        selected: part of the records -> the cases that this call measures in it; a part that is missing here has no
            restriction. An earlier call may have measured some methods on more images, and means over different
            images would not be comparable.

    Attributes:
        names: names of methods and controls.
        levels: name -> tuned threshold of each class; empty without tuning cases.
        case_records: name -> recorded values and curves of each case.
    """

    records: Records
    methods: Sequence[str]
    controls: Sequence[str]
    summaries: CaseSummaries
    tuning: Sequence[Key]
    selected: Mapping[str, Set[Key]]

    def __post_init__(self) -> None:
        self.names = [*self.methods, *self.controls]
        self.levels = {name: self._tuned(name) for name in self.names} if self.tuning else {}
        self.case_records = {name: self._case_records(name) for name in self.names}

    @property
    def cases(self) -> Sequence[ExplainedCase]:
        """The reported cases."""
        return self.summaries.cases

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the model's outputs; empty for a score."""
        return self.summaries.class_names

    def measures(self, name: str) -> dict[str, Summary]:
        """Summarize every measure of a method that has a value."""
        summaries = {}
        for key, measure in MEASURES.items():
            values = self.values(name, key)
            if not all_nan(values):
                summaries[key] = self._summary(measure, values)
        return summaries

    def _summary(self, measure: ComputedMeasure, values: Sequence[float]) -> Summary:
        if measure.statistic == "median":
            return self.summaries.median(values)
        # only shares are cut: the interval of a correlation may reach beyond -1 and 1
        bounds = (0.0, 1.0) if measure.range == (0.0, 1.0) else UNBOUNDED
        return self.summaries.summary(values, bounds)

    def values(self, name: str, key: str) -> list[float]:
        """One measure of a method, one value per case; NaN where it was not measured."""
        return [_number(row["values"].get(key)) for row in self.case_records[name]]

    @property
    def measured(self) -> set[str]:
        """Measures that are recorded for some case of some method, even if as NaN."""
        keys: set[str] = set()
        for records in self.case_records.values():
            for record in records:
                keys |= record["values"].keys()
        return keys

    def differences(self) -> dict[str, dict[tuple[str, str], Summary]]:
        """Compare every method with every control, and with every other method once, case by case.

        Returns:
            For every measure with a better direction and every pair (method, other), the mean of method minus other
            over the cases that have both values, and over classes. Pairs without a common case are left out.
        """
        differences: dict[str, dict[tuple[str, str], Summary]] = {}
        for key, measure in MEASURES.items():
            if measure.better is None:
                continue
            values = {name: self.values(name, key) for name in self.names}
            for method, other in self._pairs():
                difference = self.summaries.difference(values[method], values[other])
                if difference is not None:
                    # single classes have too few patients each, and are too many to test one by one
                    differences.setdefault(key, {})[method, other] = replace(difference, per_class=())
        return differences

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for index, method in enumerate(self.methods):
            for other in (*self.methods[index + 1 :], *self.controls):
                yield method, other

    def empty_maps(self) -> dict[str, dict[str, Any]]:
        """Count the empty maps of each method, see the measure ``empty``."""
        counts = {}
        for name in self.methods:
            values = [value for value in self.values(name, "empty") if not math.isnan(value)]
            if values:
                counts[name] = {"empty": int(sum(values)), "maps": len(values), "in_means": True}
        return counts

    def curves(self, pixels: int, sizes: int) -> list[Curve]:
        """Every curve of every method.

        Args:
            pixels: of an image.
            sizes: how many numbers of masked pixels Sensitivity-N was asked for.
        """
        curves = []
        for name in self.names:
            curves += [curve for curve in self._curves_of(name, pixels, sizes) if curve.x]
        return curves

    def _curves_of(self, name: str, pixels: int, sizes: int) -> Iterator[Curve]:
        recorded = [row["curves"] for row in self.case_records[name]]
        axes: dict[str, Sequence[float]] = {"iou_at_level": LEVELS.tolist(), "sensitivity_n": mask_sizes(pixels, sizes)}
        for curve in _CURVES_WITH_AXIS:
            axes[curve] = _recorded_axis(recorded, curve)
        for curve, axis in axes.items():
            points = []
            for i, x in enumerate(axis):
                values = [_number(curves[curve][i]) if curve in curves else math.nan for curves in recorded]
                points.append(_Point(float(x), values, self.summaries.patients))
            yield self._curve(name, curve, points)
        yield self._curve(name, "relevance_by_score", self._relevance_by_score(name))

    def _curve(self, name: str, curve: str, points: Iterable[_Point]) -> Curve:
        """Mean at each point of the axis; points without a value are left out."""
        means: dict[float, Estimate] = {}
        for point in points:
            if not all_nan(point.values):
                means[point.x] = self.summaries.mean(point.values, point.patients)
        return Curve(name, curve, list(means), list(means.values()))

    def case_rows(self) -> Iterator[Row]:
        """One row per method and case, with every measure."""
        for name in self.names:
            for case, row in zip(self.cases, self.case_records[name], strict=True):
                image, target = case.key
                measures = {key: row["values"].get(key) for key in MEASURES}
                yield {
                    "image": image,
                    "target": target,
                    "method": name,
                    "prediction": case.prediction,
                    "truth": case.truth,
                    **measures,
                }

    def _case_records(self, name: str) -> list[CaseRecord]:
        parts = {part: self.records.of(part, name) for part in PARTS}
        rows = []
        for case, class_index in zip(self.cases, self.summaries.classes, strict=True):
            row = self._merged(case.key, parts)
            if name in self.levels and "iou_at_level" in row["curves"]:
                # the IoU at every level is on record, so a tuned threshold needs no map
                level = round(self.levels[name][class_index] * (len(LEVELS) - 1))
                row["values"]["iou/tuned"] = row["curves"]["iou_at_level"][level]
            change = _number(row["values"].get("convergence"))
            if not math.isnan(change):
                row["values"]["unconverged"] = float(change > NOT_CONVERGED)
            rows.append(row)
        return rows

    def _merged(self, key: Key, parts: Mapping[str, Mapping[Key, CaseRecord]]) -> CaseRecord:
        """Values and curves of one case from all parts of the records."""
        row: CaseRecord = {"values": {}, "curves": {}}
        for part, records in parts.items():
            is_selected = part not in self.selected or key in self.selected[part]
            if is_selected and key in records:
                for kind, content in records[key].items():
                    row[kind] |= content
        return row

    def _tuned(self, name: str) -> list[float]:
        records = self.records.of("tuning", name)
        iou = torch.tensor([records[key]["curves"]["iou_at_level"] for key in self.tuning])
        classes = torch.tensor([self.summaries.class_of(key) for key in self.tuning])
        return tuned_levels(iou, LEVELS, classes, max(1, len(self.class_names)))

    def _relevance_by_score(self, name: str) -> list[_Point]:
        """Mean relevance of the zones with each score, in units of the mean over the zones of their image."""
        points: dict[float, tuple[list[float], list[str]]] = {}
        for patient, row in zip(self.summaries.patients, self.case_records[name], strict=True):
            relevances = row["curves"].get("zone_relevance", ())
            scores = row["curves"].get("zone_scores", ())
            for relevance, score in zip(relevances, scores, strict=True):
                if not math.isnan(_number(relevance)):
                    values, patients = points.setdefault(float(score), ([], []))
                    values.append(relevance)
                    patients.append(patient)
        return [_Point(score, *points[score]) for score in sorted(points)]


def _recorded_axis(recorded: Iterable[Mapping[str, Any]], curve: str) -> Sequence[float]:
    """The axis of a curve, which is the same for all cases; empty where the curve was not measured."""
    for curves in recorded:
        if f"{curve}_share" in curves:
            axis: Sequence[float] = curves[f"{curve}_share"]
            return axis
    return ()


def _number(value: Any) -> float:
    # JSON has no NaN of its own: None stands for it
    return math.nan if value is None else float(value)
