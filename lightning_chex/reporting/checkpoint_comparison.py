"""Several checkpoints measured on the same cases, typed, and their form in ``comparison.json``."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from lightning_chex.estimates import UNKNOWN, Estimate, Summary
from lightning_chex.reporting.results import Results, summary_to_json, without_nan


@dataclass(frozen=True)
class CheckpointComparison:
    """What several checkpoints of one model came to, and the paired differences between them.

    Attributes:
        results: checkpoint -> its own results, in the order given.
        scores: checkpoint -> how well it predicts, on all images reported on: ``auroc``, ``ap``, ``auroc/Mass``, ...;
            for a score ``mae`` and ``pearson``.
        differences: key of the measure -> (method or control, checkpoint, other checkpoint) -> the first checkpoint
            less the other, on the cases that all checkpoints have.
        common: cases that all checkpoints have.
        alone: checkpoint -> its cases beyond these.
    """

    results: Mapping[str, Results]
    scores: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[tuple[str, str, str], Summary]]
    common: int
    alone: Mapping[str, int]

    @property
    def first(self) -> Results:
        """The results of the first checkpoint; task and classes are those of all."""
        return next(iter(self.results.values()))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every checkpoint with each earlier one: what is subtracted from what."""
        return [(later, earlier) for earlier, later in combinations(self.results, 2)]

    @property
    def methods(self) -> list[str]:
        """Methods that every checkpoint was explained by."""
        return [name for name in self.first.methods if all(name in own.methods for own in self.results.values())]

    @property
    def controls(self) -> list[str]:
        """Controls that stand beside every checkpoint."""
        return [name for name in self.first.controls if all(name in own.controls for own in self.results.values())]

    @property
    def headline(self) -> str | None:
        """The IoU that sums up localisation."""
        return self.first.headline

    @property
    def measured(self) -> list[str]:
        """Measures with a value for at least two checkpoints."""
        used = dict.fromkeys(key for own in self.results.values() for key in own.measures)
        return [key for key in used if sum(own.has(key) for own in self.results.values()) > 1]

    def estimate(self, checkpoint: str, name: str, key: str, **of: Any) -> Estimate:
        """The value of one checkpoint over its own cases, see ``Results.estimate``."""
        return self.results[checkpoint].estimate(name, key, **of)

    def difference(
        self, name: str, pair: tuple[str, str], key: str, *, class_name: str | None = None, over_classes: bool = False
    ) -> Estimate:
        """The first checkpoint of a pair less the other, on the common cases; ``UNKNOWN`` without any."""
        summary = self.differences.get(key, {}).get((name, *pair))
        if summary is None:
            return UNKNOWN
        if over_classes:
            return summary.class_mean or UNKNOWN
        if class_name is not None:
            return summary.per_class[self.first.class_names.index(class_name)] if summary.per_class else UNKNOWN
        return summary.mean

    def warnings(self) -> list[str]:
        """What makes checkpoints less comparable: cases that not all of them have. Empty where there is nothing."""
        said = [
            f"{name} has {count:,} of its cases alone: its values rest on them too, the differences on the "
            f"{self.common:,} cases that all checkpoints have"
            for name, count in self.alone.items()
            if count
        ]
        for key in self.measured:
            # a blank map has no similarity to another one, so counts differ without a fault
            if key not in self.differences or self.first.measures[key].group == "randomization":
                continue
            for name in self.methods:
                counts = {each: own.estimate(name, key).n for each, own in self.results.items()}
                both = min((self.difference(name, pair, key).n for pair in self.pairs), default=0)
                if max(counts.values()) > both and not any(self.alone.values()):
                    numbers = ", ".join(f"{count:,} for {each}" for each, count in counts.items())
                    said.append(
                        f"{self.first.title(key)} of {name} was taken on different cases ({numbers}); the difference "
                        f"rests on the {both:,} cases that have both values"
                    )
                    break
        return said

    def rows(self) -> Iterator[list[Any]]:
        """Of each paired difference: method, checkpoint, other, measure, better, value, interval, n, patients."""
        for key, found in self.differences.items():
            for (name, one, other), summary in found.items():
                own = summary.mean
                numbers = without_nan([own.value, own.ci_low, own.ci_high])
                yield [name, one, other, key, self.first.better(key), *numbers, own.n, own.patients]

    def to_json(self) -> dict[str, Any]:
        """Return what ``comparison.json`` holds, None in place of NaN."""
        classes = self.first.class_names
        return without_nan(
            {
                "task": self.first.task,
                "class_names": list(classes),
                "regions": self.first.regions,
                "checkpoints": {
                    name: {
                        "folder": name,
                        **dict(own.protocol.get("checkpoint") or {}),
                        "cases": self.common + self.alone[name],
                        "scores": dict(self.scores[name]),
                    }
                    for name, own in self.results.items()
                },
                "cases": {"common": self.common, "alone": dict(self.alone)},
                "warnings": self.warnings(),
                "measures": {key: own.to_json() for key, own in self.first.measures.items() if key in self.measured},
                "values": {
                    key: {
                        name: {
                            checkpoint: summary_to_json(found[key], classes)
                            for checkpoint, own in self.results.items()
                            if key in (found := {**own.methods, **own.controls}[name])
                        }
                        for name in (*self.methods, *self.controls)
                    }
                    for key in self.measured
                },
                "differences": {
                    key: [
                        {"method": name, "checkpoint": one, "other": other, **summary_to_json(summary, classes)}
                        for (name, one, other), summary in found.items()
                    ]
                    for key, found in self.differences.items()
                },
            }
        )


ROW_COLUMNS = ("method", "checkpoint", "other", "measure", "better", "value", "ci_low", "ci_high", "n", "patients")
"""What ``CheckpointComparison.rows`` gives."""


def score_titles(scores: Mapping[str, float]) -> dict[str, str]:
    """Which of the scores sum up a model, and what they are called."""
    titles = {
        "auroc": "AUROC",
        "ap": "average precision",
        "mae": "mean absolute error",
        "pearson": "Pearson correlation",
    }
    return {key: title for key, title in titles.items() if not math.isnan(scores.get(key, math.nan))}
