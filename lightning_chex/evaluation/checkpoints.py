"""Comparison of several checkpoints of one model on the same cases, by paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_chex.attribution import frozen
from lightning_chex.evaluation.evaluator import new_rows
from lightning_chex.evaluation.records import OtherEvaluationError
from lightning_chex.evaluation.results import write_json
from lightning_chex.evaluation.run import Evaluated
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.evaluation.summaries import CaseSummaries, ExplainedCase
from lightning_chex.maps import Key
from lightning_chex.metrics import Summary
from lightning_chex.report import CheckpointComparison, Results
from lightning_chex.tasks import MultilabelScores

_NAMES = "checkpoints.json"
"""File that marks the folder of a comparison."""

_OTHER_CONTENTS = {"evaluation.json": "the evaluation of one checkpoint", "config.yaml": "a config.yaml"}
"""Files that mark folders of other commands, and what such a folder holds."""


def start_comparison(folder: Path, checkpoints: Mapping[str, Path]) -> None:
    """Mark a folder as that of a comparison, so that neither a run nor another evaluation is overwritten.

    Args:
        folder: exists.
        checkpoints: name -> file.

    Raises:
        OtherEvaluationError: it holds the evaluation of a single checkpoint, or is the folder of a run.
    """
    if not (folder / _NAMES).exists():
        for file, content in _OTHER_CONTENTS.items():
            if (folder / file).exists():
                raise OtherEvaluationError(
                    f"output_dir={str(folder)!r} holds {content}, not a comparison of several: give another folder"
                )
    write_json(folder / _NAMES, {name: path.name for name, path in checkpoints.items()})


@dataclass(frozen=True)
class CheckpointResults:
    """Evaluation of one checkpoint as plain values, so that its network can be freed.

    Attributes:
        results: of the evaluation.
        cases: the explained cases.
        values: method -> measure -> case -> value, for those that are known.
        scores: predictive performance, see ``CheckpointComparison``.
    """

    results: Results
    cases: list[ExplainedCase]
    values: Mapping[str, Mapping[str, Mapping[Key, float]]]
    scores: Mapping[str, float]

    @classmethod
    def of(cls, evaluated: Evaluated) -> "CheckpointResults":
        """Take the values from an evaluation whose network still has its weights."""
        values: dict[str, dict[str, dict[Key, float]]] = {}
        for row in evaluated.rows:
            case = (row["image"], row["target"])
            of_method = values.setdefault(row["method"], {})
            for key in evaluated.results.measures:
                value = row[key]
                if value is not None and not math.isnan(value):
                    of_method.setdefault(key, {})[case] = float(value)
        return cls(evaluated.results, evaluated.cases, values, scores_of(evaluated))

    def column(self, method: str, key: str, cases: Sequence[ExplainedCase]) -> list[float]:
        """One measure of a method, one value per case; NaN where it is unknown."""
        values = self.values.get(method, {}).get(key, {})
        return [values.get(case.key, math.nan) for case in cases]


def scores_of(evaluated: Evaluated) -> dict[str, float]:
    """Predictive performance on the reported images, including those without a case.

    Returns:
        ``auroc`` and ``ap``, means over the classes that can be scored, and of each class, ``auroc/Mass``; for a score
        ``mae`` and ``pearson``. What cannot be scored, such as a class without a negative image, is left out.
    """
    if not evaluated.results.class_names:
        return _regression_scores(evaluated.cases)
    logits, labels = _outputs_and_labels(evaluated)
    scores = {}
    for column, name in enumerate(evaluated.results.class_names):
        is_known = labels[:, column].isfinite()  # NaN stands for unknown
        metric = MultilabelScores([name])
        metric.update(logits[is_known, column : column + 1], labels[is_known, column : column + 1])
        values = metric.compute()
        if values["classes_scored"] > 0:
            for key in ("auroc", "ap"):
                scores[f"{key}/{name}"] = float(values[key])
    for key in ("auroc", "ap"):
        of_classes = [value for name, value in scores.items() if name.startswith(f"{key}/")]
        if of_classes:
            scores[key] = float(np.mean(of_classes))
    return scores


def _regression_scores(cases: Sequence[ExplainedCase]) -> dict[str, float]:
    predicted = np.array([case.prediction for case in cases])
    truth = np.array([case.truth for case in cases])
    is_known = np.isfinite(truth)
    if not is_known.any():
        return {}
    predicted = predicted[is_known]
    truth = truth[is_known]
    scores = {"mae": float(np.abs(predicted - truth).mean())}
    # a correlation is undefined where either of them is constant
    if len(truth) > 1 and predicted.std() > 0 and truth.std() > 0:
        scores["pearson"] = float(np.corrcoef(predicted, truth)[0, 1])
    return scores


def _outputs_and_labels(evaluated: Evaluated) -> tuple[Tensor, Tensor]:
    """Logits and labels of the reported images on the CPU, (N, K) each; images with duplicate ids are skipped."""
    network = evaluated.evaluator.network
    seen: set[str] = set()
    outputs = []
    labels = []
    for batch in evaluated.images.batches():
        with frozen(network), evaluated.evaluator.precision(), torch.no_grad():
            output = network(batch["image"].contiguous(memory_format=torch.channels_last)).float().cpu()
        rows = new_rows(batch["image_id"], seen)
        outputs.append(output[rows])
        labels.append(batch["label"].float().cpu()[rows])
    return torch.cat(outputs), torch.cat(labels)


def compare(evaluations: Mapping[str, CheckpointResults], settings: EvaluationSettings) -> CheckpointComparison:
    """Compare the evaluations of several checkpoints.

    Args:
        evaluations: by the checkpoint's name, at least two, all of the same classes and images.
        settings: resamples and seed of the bootstrap.

    Returns:
        The differences of every measure with a better direction, each later checkpoint minus each earlier one, on the
        cases that all of them have; those of IoU per class too.
    """
    keys = {name: {case.key for case in evaluation.cases} for name, evaluation in evaluations.items()}
    common = set.intersection(*keys.values())
    first = next(iter(evaluations.values()))
    cases = [case for case in first.cases if case.key in common]
    summaries = CaseSummaries(cases, first.results.class_names, settings.resamples, settings.seed)
    differences: dict[str, dict[tuple[str, str, str], Summary]] = {}
    for key, measure in first.results.measures.items():
        if measure.better is None:
            continue
        of_measure = _differences(evaluations, first.results.names, key, summaries)
        if of_measure:
            differences[key] = of_measure
    return CheckpointComparison(
        results={name: evaluation.results for name, evaluation in evaluations.items()},
        scores={name: evaluation.scores for name, evaluation in evaluations.items()},
        differences=differences,
        common=len(common),
        alone={name: len(of_checkpoint - common) for name, of_checkpoint in keys.items()},
    )


def _differences(
    evaluations: Mapping[str, CheckpointResults], methods: Sequence[str], key: str, summaries: CaseSummaries
) -> dict[tuple[str, str, str], Summary]:
    """Differences of one measure: (method, later checkpoint, earlier checkpoint) -> later minus earlier."""
    differences = {}
    for method in methods:
        columns = {name: each.column(method, key, summaries.cases) for name, each in evaluations.items()}
        for earlier, later in combinations(evaluations, 2):
            difference = summaries.difference(columns[later], columns[earlier])
            if difference is None:
                continue
            if not key.startswith("iou/"):
                # per class, only the localisation is reported
                difference = replace(difference, per_class=())
            differences[method, later, earlier] = difference
    return differences
