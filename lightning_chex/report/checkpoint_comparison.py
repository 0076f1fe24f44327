"""Comparison of several checkpoints on the same cases, and its form in ``comparison.json``."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from lightning_chex.estimates import UNKNOWN, Estimate, Summary
from lightning_chex.report.results import Results, select_estimate, summary_to_json, without_nan

SCORE_TITLES = {
    "auroc": "AUROC",
    "ap": "average precision",
    "mae": "mean absolute error",
    "pearson": "Pearson correlation",
}
"""Scores that summarize a model, with their titles."""


@dataclass(frozen=True)
class CheckpointComparison:
    """Results of several checkpoints of one model, and the paired differences between them.

    Attributes:
        results: checkpoint -> its results, in the order given.
        scores: checkpoint -> its predictive performance on all reported images: ``auroc``, ``ap``, ``auroc/Mass``, ...;
            for a score ``mae`` and ``pearson``.
        differences: key of the measure -> (method or control, checkpoint, other checkpoint) -> the first checkpoint
            minus the other, on the cases that all checkpoints have.
        common: number of cases that all checkpoints have.
        alone: checkpoint -> number of its other cases.
    """

    results: Mapping[str, Results]
    scores: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[tuple[str, str, str], Summary]]
    common: int
    alone: Mapping[str, int]

    @property
    def first(self) -> Results:
        """The results of the first checkpoint, whose task and classes all checkpoints share."""
        return next(iter(self.results.values()))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every checkpoint with each earlier one, which is subtracted from it."""
        return [(later, earlier) for earlier, later in combinations(self.results, 2)]

    @property
    def methods(self) -> list[str]:
        """Names of the methods that all checkpoints have."""
        names = list(self.first.methods)
        for results in self.results.values():
            names = [name for name in names if name in results.methods]
        return names

    @property
    def controls(self) -> list[str]:
        """Names of the controls that all checkpoints have."""
        names = list(self.first.controls)
        for results in self.results.values():
            names = [name for name in names if name in results.controls]
        return names

    @property
    def headline(self) -> str | None:
        """Key of the IoU that sums up localisation."""
        return self.first.headline

    @property
    def measured(self) -> list[str]:
        """Keys of the measures with a value for at least two checkpoints."""
        # a dictionary keeps the order of the declarations, a set would not
        keys: dict[str, None] = {}
        for results in self.results.values():
            keys |= dict.fromkeys(results.measures)
        measured = []
        for key in keys:
            count = sum(results.has(key) for results in self.results.values())
            if count > 1:
                measured.append(key)
        return measured

    def score_titles(self) -> dict[str, str]:
        """Titles of the scores that summarize a model; those that no checkpoint has are left out."""
        titles: dict[str, str] = {}
        for scores in self.scores.values():
            for key, title in SCORE_TITLES.items():
                if not math.isnan(scores.get(key, math.nan)):
                    titles[key] = title
        return titles

    def estimate(self, checkpoint: str, name: str, key: str, **selection: Any) -> Estimate:
        """Return the value of one checkpoint over its own cases; see ``Results.estimate``."""
        return self.results[checkpoint].estimate(name, key, **selection)

    def difference(
        self, name: str, pair: tuple[str, str], key: str, *, class_name: str | None = None, over_classes: bool = False
    ) -> Estimate:
        """Return the first checkpoint of a pair minus the other, on the common cases; ``UNKNOWN`` without any."""
        summary = self.differences.get(key, {}).get((name, *pair))
        if summary is None:
            return UNKNOWN
        return select_estimate(summary, self.first.class_names, class_name=class_name, over_classes=over_classes)

    def warnings(self) -> list[str]:
        """Describe cases that not all checkpoints have, which make their values less comparable."""
        warnings = []
        for name, count in self.alone.items():
            if count:
                warnings.append(
                    f"{name} has {count:,} cases that other checkpoints lack: its values include them, the differences "
                    f"rest on the {self.common:,} cases that all checkpoints have"
                )
        if warnings:
            # with other cases, the counts of every measure differ too
            return warnings
        for key in self.measured:
            warning = self._different_cases(key)
            if warning:
                warnings.append(warning)
        return warnings

    def _different_cases(self, key: str) -> str:
        """Warning that a measure of some method was taken on different cases; empty if there is none."""
        # a blank map has no similarity to another one, so counts of the sanity checks differ without a fault
        if key not in self.differences or self.first.measures[key].group == "randomization":
            return ""
        for name in self.methods:
            counts = {checkpoint: each.estimate(name, key).n for checkpoint, each in self.results.items()}
            common = min((self.difference(name, pair, key).n for pair in self.pairs), default=0)
            if max(counts.values()) > common:
                numbers = ", ".join(f"{count:,} for {checkpoint}" for checkpoint, count in counts.items())
                return (
                    f"{self.first.title(key)} of {name} was taken on different cases ({numbers}); the difference "
                    f"rests on the {common:,} cases that have both values"
                )
        return ""

    def rows(self) -> Iterator[list[Any]]:
        """Each paired difference as a row of ``ROW_COLUMNS``."""
        for key, pairs in self.differences.items():
            for (name, checkpoint, other), summary in pairs.items():
                mean = summary.mean
                numbers = without_nan([mean.value, mean.ci_low, mean.ci_high])
                yield [name, checkpoint, other, key, self.first.better(key), *numbers, mean.n, mean.patients]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``comparison.json``, with None in place of NaN."""
        measured = self.measured
        return without_nan(
            {
                "task": self.first.task,
                "class_names": list(self.first.class_names),
                "regions": self.first.regions,
                "checkpoints": {name: self._checkpoint_to_json(name) for name in self.results},
                "cases": {"common": self.common, "alone": dict(self.alone)},
                "warnings": self.warnings(),
                "measures": {key: each.to_json() for key, each in self.first.measures.items() if key in measured},
                "values": {key: self._values_to_json(key) for key in measured},
                "differences": {key: self._differences_to_json(key) for key in self.differences},
            }
        )

    def _checkpoint_to_json(self, name: str) -> dict[str, Any]:
        return {
            "folder": name,
            **dict(self.results[name].protocol.get("checkpoint") or {}),
            "cases": self.common + self.alone[name],
            "scores": dict(self.scores[name]),
        }

    def _values_to_json(self, key: str) -> dict[str, dict[str, Any]]:
        """One measure: method or control -> checkpoint -> value over its cases."""
        values: dict[str, dict[str, Any]] = {}
        for name in (*self.methods, *self.controls):
            values[name] = {}
            for checkpoint, results in self.results.items():
                measures = {**results.methods, **results.controls}[name]
                if key in measures:
                    values[name][checkpoint] = summary_to_json(measures[key], self.first.class_names)
        return values

    def _differences_to_json(self, key: str) -> list[dict[str, Any]]:
        differences = []
        for (name, checkpoint, other), summary in self.differences[key].items():
            pair = {"method": name, "checkpoint": checkpoint, "other": other}
            differences.append(pair | summary_to_json(summary, self.first.class_names))
        return differences


ROW_COLUMNS = ("method", "checkpoint", "other", "measure", "better", "value", "ci_low", "ci_high", "n", "patients")
"""Columns of ``CheckpointComparison.rows``."""
