"""Several evaluations of one model with different weights, on the same cases: paired differences by patient."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from lightning_chex.attribution import frozen
from lightning_chex.evaluation.assembly import Explained
from lightning_chex.evaluation.records import OtherEvaluationError
from lightning_chex.evaluation.results import write_json
from lightning_chex.evaluation.run import Evaluated
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.explaining import Key
from lightning_chex.metrics import Summary, summarize
from lightning_chex.reporting import CheckpointComparison, Results
from lightning_chex.tasks import MultilabelScores

_NAMES = "checkpoints.json"
"""What tells the folder of a comparison from others."""


def begin(folder: Path, checkpoints: Mapping[str, Path]) -> None:
    """Note in a folder whose comparison it holds, so that neither a run nor another evaluation is written over.

    Raises:
        OtherEvaluationError: it holds the evaluation of a single checkpoint, or is the folder of a run.
    """
    if not (folder / _NAMES).exists():
        for sign, what in (("evaluation.json", "the evaluation of one checkpoint"), ("config.yaml", "a config.yaml")):
            if (folder / sign).exists():
                raise OtherEvaluationError(
                    f"output_dir={str(folder)!r} holds {what}, and no comparison of several: give another folder"
                )
    write_json(folder / _NAMES, {name: path.name for name, path in checkpoints.items()})


@dataclass(frozen=True)
class Measured:
    """What is kept of the evaluation of one checkpoint: plain values, nothing of the network.

    Attributes:
        results: of the evaluation.
        cases: what was explained.
        values: method -> measure -> case -> value, for those that are known.
        scores: how well the network predicts, see ``CheckpointComparison``.
    """

    results: Results
    cases: list[Explained]
    values: Mapping[str, Mapping[str, Mapping[Key, float]]]
    scores: Mapping[str, float]

    @classmethod
    def of(cls, found: Evaluated) -> "Measured":
        """Take it from an evaluation whose network still has its weights."""
        values: dict[str, dict[str, dict[Key, float]]] = {}
        for row in found.rows:
            own = values.setdefault(row["method"], {})
            for key in found.results.measures:
                value = row[key]
                if value is not None and not math.isnan(value):
                    own.setdefault(key, {})[row["image"], row["target"]] = float(value)
        return cls(found.results, found.cases, values, scores_of(found))


def scores_of(found: Evaluated) -> dict[str, float]:
    """How well the network predicts the images reported on, those without a case included.

    Returns:
        ``auroc`` and ``ap``, means over the classes that can be scored, and of each class, ``auroc/Mass``; for a score
        ``mae`` and ``pearson``. What cannot be scored, such as a class without a negative image, is left out.
    """
    if not found.results.class_names:
        predicted = np.array([case.prediction for case in found.cases])
        truth = np.array([case.truth for case in found.cases])
        known = np.isfinite(truth)
        if not known.any():
            return {}
        predicted, truth = predicted[known], truth[known]
        scores = {"mae": float(np.abs(predicted - truth).mean())}
        if len(truth) > 1 and predicted.std() > 0 and truth.std() > 0:
            scores["pearson"] = float(np.corrcoef(predicted, truth)[0, 1])
        return scores
    network, seen = found.evaluator.network, set[str]()
    outputs, labels = [], []
    for batch in found.images.batches():
        with frozen(network), found.evaluator.precision(), torch.no_grad():
            output = network(batch["image"].contiguous(memory_format=torch.channels_last)).float().cpu()
        first = {name: row for row, name in reversed(list(enumerate(batch["image_id"]))) if name not in seen}
        seen |= first.keys()
        new = sorted(first.values())
        outputs.append(output[new])
        labels.append(batch["label"].float().cpu()[new])
    logits, truths = torch.cat(outputs), torch.cat(labels)
    scores = {}
    for column, name in enumerate(found.results.class_names):
        told = truths[:, column].isfinite()  # NaN stands for unknown
        metric = MultilabelScores([name])
        metric.update(logits[told, column : column + 1], truths[told, column : column + 1])
        values = metric.compute()
        if values["classes_scored"] > 0:
            scores |= {f"{key}/{name}": float(values[key]) for key in ("auroc", "ap")}
    for key in ("auroc", "ap"):
        own = [value for name, value in scores.items() if name.startswith(f"{key}/")]
        if own:
            scores[key] = float(np.mean(own))
    return scores


def compare(found: Mapping[str, Measured], settings: EvaluationSettings) -> CheckpointComparison:
    """Put the evaluations of several checkpoints side by side.

    Args:
        found: by the checkpoint's name, at least two, all of the same classes and images.
        settings: resamples and seed of the bootstrap.

    Returns:
        The differences of every measure with a better direction, each later checkpoint less each earlier one, on the
        cases that all of them have; those of IoU per class too.
    """
    sets = {name: {case.key for case in own.cases} for name, own in found.items()}
    common = set.intersection(*sets.values())
    first = next(iter(found.values()))
    cases = [case for case in first.cases if case.key in common]
    class_names = first.results.class_names
    classes = [class_names.index(case.key[1]) for case in cases] if class_names else None
    patients = [case.patient for case in cases]
    differences: dict[str, dict[tuple[str, str, str], Summary]] = {}
    for key, measure in first.results.measures.items():
        if measure.better is None:
            continue
        for name in first.results.names:
            for earlier, later in combinations(found, 2):
                one, other = (found[each].values.get(name, {}).get(key, {}) for each in (later, earlier))
                less = [one.get(case.key, math.nan) - other.get(case.key, math.nan) for case in cases]
                if all(map(math.isnan, less)):
                    continue
                summary = summarize(
                    less,
                    patients,
                    classes,
                    max(1, len(class_names)),
                    resamples=settings.resamples,
                    seed=settings.seed,
                )
                if not class_names:
                    summary = Summary(summary.mean)
                elif not key.startswith("iou/"):
                    summary = replace(summary, per_class=())
                differences.setdefault(key, {})[name, later, earlier] = summary
    return CheckpointComparison(
        results={name: own.results for name, own in found.items()},
        scores={name: own.scores for name, own in found.items()},
        differences=differences,
        common=len(common),
        alone={name: len(keys - common) for name, keys in sets.items()},
    )
