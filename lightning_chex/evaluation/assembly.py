"""The records of all methods put together: means with bootstrap intervals by patient, differences and curves."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lightning_chex.attribution import NOT_CONVERGED
from lightning_chex.class_names import SCORE
from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.evaluation.measuring import LEVELS
from lightning_chex.evaluation.records import Records
from lightning_chex.explaining import Key
from lightning_chex.metrics import Estimate, Summary, mask_sizes, summarize, tuned_levels
from lightning_chex.reporting import Curve

Row = dict[str, Any]

PARTS = ("localization", "perturbation", "randomization", "label_randomization")
"""What records hold of a case that is reported on."""

_SHARED_AXES = ("insertion", "deletion", "road_morf", "road_lerf", "randomization")


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


@dataclass
class Assembly:
    """Results of the cases at hand, from the records of all methods.

    Attributes:
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

    records: Records
    methods: Sequence[str]
    controls: Sequence[str]
    cases: Sequence[Explained]
    class_names: Sequence[str]
    tuning: Sequence[Key]
    chosen: Mapping[str, Set[Key]]
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        self.names = [*self.methods, *self.controls]
        self._classes = [self._class_of(case.key) for case in self.cases]
        self.levels = {name: self._tuned(name) for name in self.names} if self.tuning else {}
        self.rows = {name: self._rows(name) for name in self.names}

    def measures(self, name: str) -> dict[str, Summary]:
        """Every measure of a method that has a value."""
        found = {}
        for key, measure in MEASURES.items():
            values = self.values(name, key)
            if not all(map(math.isnan, values)):
                share = measure.range == (0.0, 1.0)
                found[key] = self._median(values) if measure.statistic == "median" else self.summary(values, share)
        return found

    def values(self, name: str, key: str) -> list[float]:
        """One measure of a method, a value a case; NaN where it was not taken."""
        return [_number(row["values"].get(key)) for row in self.rows[name]]

    @property
    def measured(self) -> set[str]:
        """Measures that some case of some method has a value of, be it NaN."""
        return {key for rows in self.rows.values() for row in rows for key in row["values"]}

    def differences(self) -> dict[str, dict[tuple[str, str], Summary]]:
        """Compare every method with every control, and with every other method once, case by case.

        Two methods meet the same images, and what one finds hard the other often does too. The interval of the
        difference on the same cases is therefore far narrower than the intervals of the two means suggest, and it alone
        says whether one does better.

        Returns:
            For every measure with a better direction and every pair (method, other), the mean of method less other
            over the cases that both have a value for, and over classes. Pairs without a common case are left out.
        """
        found: dict[str, dict[tuple[str, str], Summary]] = {}
        for key in (key for key, measure in MEASURES.items() if measure.better is not None):
            values = {name: self.values(name, key) for name in self.names}
            for place, method in enumerate(self.methods):
                for other in [*self.methods[place + 1 :], *self.controls]:
                    less = [own - its for own, its in zip(values[method], values[other], strict=True)]
                    if not all(map(math.isnan, less)):
                        # single classes have too few patients each, and are too many to judge one by one
                        found.setdefault(key, {})[method, other] = replace(self.summary(less), per_class=())
        return found

    def curves(self, pixels: int, sizes: int) -> list[Curve]:
        """Every curve of every method.

        Args:
            pixels: of an image.
            sizes: how many numbers of masked pixels Sensitivity-N was asked for.
        """
        return [curve for name in self.names for curve in self._curves_of(name, pixels, sizes) if curve.x]

    def _curves_of(self, name: str, pixels: int, sizes: int) -> Iterable[Curve]:
        known = [row["curves"] for row in self.rows[name]]
        axes: dict[str, Sequence[float]] = {
            "iou_at_level": LEVELS.tolist(),
            "sensitivity_n": mask_sizes(pixels, sizes),
            **{key: next((own[f"{key}_share"] for own in known if f"{key}_share" in own), ()) for key in _SHARED_AXES},
        }
        patients = [case.patient for case in self.cases]
        for curve, axis in axes.items():
            columns = (
                [_number(own[curve][i]) if curve in own else math.nan for own in known] for i in range(len(axis))
            )
            yield self._curve(name, curve, ((float(x), own, patients) for x, own in zip(axis, columns, strict=True)))
        yield self._curve(name, "relevance_by_score", self._relevance_by_score(name))

    def _curve(self, name: str, curve: str, places: Iterable[tuple[float, Sequence[float], Sequence[str]]]) -> Curve:
        """Means of the values at each place of the axis, given with their patients; places without a value left out."""
        means = {
            x: summarize(values, patients, resamples=self.resamples, seed=self.seed).mean
            for x, values, patients in places
            if not all(map(math.isnan, values))
        }
        return Curve(name, curve, list(means), list(means.values()))

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

    def summary(self, values: Sequence[float], share: bool = False) -> Summary:
        """Mean of one value a case, over maps, over classes and per class; of a score over maps alone.

        Intervals of a share end at 0 and 1.
        """
        patients = [case.patient for case in self.cases]
        classes = self._classes if self.class_names else None
        bounds, count = (0.0, 1.0) if share else (-math.inf, math.inf), max(1, len(self.class_names))
        summary = summarize(values, patients, classes, count, resamples=self.resamples, seed=self.seed, bounds=bounds)
        return summary if self.class_names else Summary(summary.mean)

    def _median(self, values: Sequence[float]) -> Summary:
        """The same for a median, over maps alone and without an interval."""
        known = [(value, case.patient) for value, case in zip(values, self.cases, strict=True) if value == value]
        middle = float(np.median([value for value, _ in known]))
        return Summary(Estimate(middle, math.nan, math.nan, len(known), len({patient for _, patient in known})))

    def _relevance_by_score(self, name: str) -> list[tuple[float, list[float], list[str]]]:
        """Score -> mean relevance of each zone with it, in units of its image's mean over zones, and the patients."""
        found: dict[float, tuple[list[float], list[str]]] = {}
        for case, row in zip(self.cases, self.rows[name], strict=True):
            curves = row["curves"]
            for relevance, score in zip(curves.get("zone_relevance", ()), curves.get("zone_scores", ()), strict=True):
                if not math.isnan(_number(relevance)):
                    values, patients = found.setdefault(float(score), ([], []))
                    values.append(relevance)
                    patients.append(case.patient)
        return [(score, *found[score]) for score in sorted(found)]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
