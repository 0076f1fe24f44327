"""From records to results: means over maps and over classes with bootstrap intervals by patient, curves, a table."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_chex.attribution import NOT_CONVERGED
from lightning_chex.csv_text import csv_lines
from lightning_chex.evaluation.measures import MEASURES, described
from lightning_chex.evaluation.measuring import LEVELS
from lightning_chex.evaluation.records import Key, Records
from lightning_chex.explaining.cases import SCORE
from lightning_chex.files import write_whole
from lightning_chex.metrics import Estimate, mask_sizes, summarize, tuned_levels

Row = dict[str, Any]


@dataclass(frozen=True)
class Explained:
    """One case, without its pictures.

    Attributes:
        key: image id and target name.
        patient: who it shows; stays in memory.
        prediction: probability of the class, or the score.
        truth: its label, or the true score.
    """

    key: Key
    patient: str
    prediction: float
    truth: float


@dataclass(frozen=True)
class CurvePoint:
    """A mean along a curve."""

    method: str
    curve: str
    x: float
    value: float
    ci_low: float
    ci_high: float
    n: int


class Assembly:
    """Results of the cases at hand, from the records of all methods.

    Args:
        records: what was measured.
        methods: names of the methods.
        controls: names of the controls.
        cases: those to report on.
        class_names: of the model's outputs; empty for a score.
        tuning: the cases thresholds are tuned on, other images; none leaves the rule ``tuned`` out.
        chosen: by part of the records, the cases it was asked for this time; of a part that is not named all count.
            What an earlier call measured on more images for some methods alone would not compare.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        records: Records,
        methods: Sequence[str],
        controls: Sequence[str],
        cases: Sequence[Explained],
        class_names: Sequence[str],
        tuning: Sequence[Key],
        chosen: Mapping[str, Set[Key]],
        resamples: int,
        seed: int,
    ) -> None:
        self.records = records
        self.methods = list(methods)
        self.controls = list(controls)
        self.names = [*methods, *controls]
        self.cases = cases
        self.class_names = list(class_names)
        self.tuning = tuning
        self.chosen = chosen
        self.resamples = resamples
        self.seed = seed
        self._classes = [self._class_of(case.key) for case in cases]
        self.levels = {name: self._tuned(name) for name in self.names} if tuning else {}
        self.rows = {name: self._rows(name) for name in self.names}

    def measures(self, name: str) -> dict[str, Any]:
        """Every measure of a method that has a value, in the form of ``results.json``."""
        found = {}
        for key, measure in MEASURES.items():
            values = self.values(name, key)
            if not all(map(math.isnan, values)):
                found[key] = self.summary(values) if measure.statistic == "mean" else self._median(values)
        return found

    def values(self, name: str, key: str) -> list[float]:
        """One measure of a method, a value a case; NaN where it was not taken."""
        return [_number(row["values"].get(key)) for row in self.rows[name]]

    @property
    def measured(self) -> set[str]:
        """Measures that some case of some method has a value of, be it NaN."""
        return {key for rows in self.rows.values() for row in rows for key in row["values"]}

    def curves(self, pixels: int, sizes: int) -> list[CurvePoint]:
        """Every curve of every method.

        Args:
            pixels: of an image.
            sizes: how many numbers of masked pixels Sensitivity-N was asked for.
        """
        return [point for name in self.names for point in self._curves_of(name, pixels, sizes)]

    def _curves_of(self, name: str, pixels: int, sizes: int) -> list[CurvePoint]:
        known = [row["curves"] for row in self.rows[name]]
        points: list[CurvePoint] = []
        axes: dict[str, Sequence[float]] = {
            "iou_at_level": LEVELS.tolist(),
            "sensitivity_n": mask_sizes(pixels, sizes),
            **{key: next((own[f"{key}_share"] for own in known if f"{key}_share" in own), ()) for key in _SHARED_AXES},
        }
        for curve, axis in axes.items():
            for i, x in enumerate(axis):
                values = [_number(own[curve][i]) if curve in own else math.nan for own in known]
                points += self._point(name, curve, float(x), values)
        return points + self._relevance_by_score(name)

    def case_rows(self) -> Iterable[Row]:
        """One row a method and case, with every measure."""
        for name in self.names:
            for case, row in zip(self.cases, self.rows[name], strict=True):
                image, target = case.key
                head: Row = {"image": image, "target": target, "method": name}
                head |= {"prediction": case.prediction, "truth": case.truth}
                yield head | {key: row["values"].get(key) for key in MEASURES}

    def _class_of(self, key: Key) -> int:
        return 0 if key[1] == SCORE and not self.class_names else self.class_names.index(key[1])

    def _rows(self, name: str) -> list[Row]:
        parts = {part: self.records.of(part, name) for part in PARTS}
        rows = []
        for case, kind in zip(self.cases, self._classes, strict=True):
            row: Row = {"values": {}, "curves": {}}
            for part, known in parts.items():
                if case.key in self.chosen.get(part, {case.key}):
                    for sort, own in known.get(case.key, {}).items():
                        row[sort] |= own
            if name in self.levels and "iou_at_level" in row["curves"]:
                level = round(self.levels[name][kind] * (len(LEVELS) - 1))
                row["values"]["iou/tuned"] = row["curves"]["iou_at_level"][level]
            changed = _number(row["values"].get("convergence"))
            if not math.isnan(changed):
                row["values"]["unconverged"] = float(changed > NOT_CONVERGED)
            rows.append(row)
        return rows

    def _tuned(self, name: str) -> list[float]:
        known = self.records.of("tuning", name)
        iou = torch.tensor([known[key]["curves"]["iou_at_level"] for key in self.tuning])
        classes = torch.tensor([self._class_of(key) for key in self.tuning])
        return tuned_levels(iou, LEVELS, classes, max(1, len(self.class_names)))

    def summary(self, values: Sequence[float]) -> dict[str, Any]:
        """Mean of one value a case, over maps, over classes and per class, in the form of ``results.json``."""
        patients = [case.patient for case in self.cases]
        classes = self._classes if self.class_names else None
        summary = summarize(
            values, patients, classes, max(1, len(self.class_names)), resamples=self.resamples, seed=self.seed
        )
        result = _plain(summary.mean)
        if self.class_names:
            result["class_mean"] = _plain(summary.class_mean)
            per_class = zip(self.class_names, summary.per_class, strict=True)
            result["per_class"] = {name: _plain(estimate) for name, estimate in per_class if estimate.n}
        return result

    def _median(self, values: Sequence[float]) -> dict[str, Any]:
        """The same for a median, over maps alone and without an interval."""
        known = [(value, case.patient) for value, case in zip(values, self.cases, strict=True) if value == value]
        middle = float(np.median([value for value, _ in known]))
        return _plain(Estimate(middle, math.nan, math.nan, len(known), len({patient for _, patient in known})))

    def _point(self, name: str, curve: str, x: float, values: Sequence[float]) -> list[CurvePoint]:
        if all(map(math.isnan, values)):
            return []
        patients = [case.patient for case in self.cases]
        mean = summarize(values, patients, resamples=self.resamples, seed=self.seed).mean
        return [CurvePoint(name, curve, x, mean.value, mean.ci_low, mean.ci_high, mean.n)]

    def _relevance_by_score(self, name: str) -> list[CurvePoint]:
        """Mean relevance of the zones with each score, in units of the image's mean over its zones; n counts zones."""
        found: dict[float, list[tuple[float, str]]] = {}
        for case, row in zip(self.cases, self.rows[name], strict=True):
            curves = row["curves"]
            for relevance, score in zip(curves.get("zone_relevance", ()), curves.get("zone_scores", ()), strict=True):
                if not math.isnan(_number(relevance)):
                    found.setdefault(float(score), []).append((relevance, case.patient))
        points = []
        for score, pairs in sorted(found.items()):
            values, patients = zip(*pairs, strict=True)
            mean = summarize(values, patients, resamples=self.resamples, seed=self.seed).mean
            points.append(CurvePoint(name, "relevance_by_score", score, mean.value, mean.ci_low, mean.ci_high, mean.n))
        return points


PARTS = ("localization", "perturbation", "randomization", "label_randomization")
"""What records hold of a case that is reported on."""

_SHARED_AXES = ("insertion", "deletion", "road_morf", "road_lerf", "randomization")


def results_of(
    assembly: Assembly,
    differences: Mapping[str, Any],
    kind: str,
    left_out: Mapping[str, str],
    protocol: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``results.json`` holds.

    Args:
        assembly: of the records.
        differences: between methods, see ``lightning_chex.evaluation.differences``.
        kind: what maps were judged by.
        left_out: why methods are missing, by name.
        protocol: see ``Protocol.account``.
    """
    found = {name: assembly.measures(name) for name in assembly.names}
    judged = any("iou/oracle" in measures for measures in found.values())
    return without_nan(
        {
            "task": "classification" if assembly.class_names else "regression",
            "class_names": assembly.class_names,
            "regions": kind if judged else None,
            "measures": described({key for measures in found.values() for key in measures}),
            "methods": {name: found[name] for name in assembly.methods},
            "controls": {name: found[name] for name in assembly.controls},
            "differences": dict(differences),
            "left_out": dict(left_out),
            "protocol": dict(protocol),
        }
    )


def write_curves(path: Path, points: Iterable[CurvePoint]) -> None:
    """Write ``curves.csv``."""
    _write_table(path, [asdict(point) for point in points], [*CurvePoint.__dataclass_fields__])


def write_cases(path: Path, rows: Iterable[Row]) -> None:
    """Write ``per_image.csv``; what was not measured is left empty."""
    _write_table(path, list(rows), ["image", "target", "method", "prediction", "truth", *MEASURES])


def _write_table(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    write_whole(path, csv_lines([columns, *cells]), sync=True)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {key: without_nan(value) for key, value in asdict(estimate).items()}


def without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not know, by None, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(own) for own in value]
    if isinstance(value, (float, np.floating)) and math.isnan(value):
        return None
    return value


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, json.dumps(content, indent=1) + "\n", sync=True)
