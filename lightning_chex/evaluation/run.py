"""One evaluation from beginning to end, in five steps: prepare, tune, measure, check, assemble."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl

from lightning_chex.data.contract import DataError
from lightning_chex.evaluation.assembly import Assembly, Row
from lightning_chex.evaluation.evaluator import Evaluator
from lightning_chex.evaluation.preparation import PreparedEvaluation, Request, prepare
from lightning_chex.evaluation.randomization import LABELS, PARAMETERS
from lightning_chex.evaluation.results import results_of, write_cases, write_curves, write_json
from lightning_chex.evaluation.sanity_checks import run_sanity_checks
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.evaluation.subject import Images, Subject
from lightning_chex.evaluation.summaries import CaseSummaries, ExplainedCase
from lightning_chex.maps import Cases, Key, LungFinder
from lightning_chex.report import Curve, Results


@dataclass(frozen=True)
class Evaluated:
    """The results of an evaluation, and the parts that made them.

    Attributes:
        results: content of ``results.json``.
        curves: content of ``curves.csv``, one per method and kind.
        cases: the explained cases.
        rows: content of ``per_image.csv``, one per method and case.
        evaluator: with the methods, controls and records, for pictures.
        images: that were explained.
    """

    results: Results
    curves: list[Curve]
    cases: list[ExplainedCase]
    rows: list[Row]
    evaluator: Evaluator
    images: Images


def evaluate(
    subject: Subject,
    datamodule: pl.LightningDataModule,
    folder: Path,
    methods: Sequence[str] | None = None,
    limit: int | None = None,
    settings: EvaluationSettings | None = None,
    find_lungs: LungFinder | None = None,
    show_progress: bool = True,
) -> Evaluated:
    """Compare methods on a trained model, and write the result files; see ``ChexTrainer.evaluate``.

    Args:
        subject: the model.
        datamodule: offers images by ``explained_dataset("test")``, to report on, and ``("validate")``, to tune on.
        folder: for the results; an evaluation begun there with the same settings is resumed.
        methods: see ``choose_methods``.
        limit: images at most; None for all.
        settings: of the evaluation.
        find_lungs: outlines lungs of images without masks; None leaves them unknown.
        show_progress: draw progress bars.

    Raises:
        DataError: there is no image to explain.
        ValueError: a method that does not suit the model, a setting that does not suit the images, or a folder with
            another evaluation.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit!r} must be at least 1 image, or left out for all")
    settings = EvaluationSettings() if settings is None else settings
    prepared = prepare(subject, datamodule, Request(folder, methods, limit, settings, find_lungs, show_progress))
    tuning_cases = _tune(prepared)
    cases = _measure(prepared)
    checked = run_sanity_checks(prepared)
    return _write(prepared, _assemble(prepared, tuning_cases, cases, checked))


def _tune(prepared: PreparedEvaluation) -> list[Key]:
    """Measure the tuning images at every threshold, and return their cases."""
    tuning = prepared.images.tuning
    if tuning is None:
        return []
    with prepared.request.bar("thresholds, on the tuning half", tuning.count * len(prepared.names)) as progress:
        return prepared.evaluator.tune(tuning.batches(), progress.update)


def _measure(prepared: PreparedEvaluation) -> list[ExplainedCase]:
    """Explain and measure the images to report on, and return their cases.

    Raises:
        DataError: there is none.
    """
    tested = prepared.images.tested
    budget = prepared.request.settings.perturbed(prepared.request.limit)
    cases: list[ExplainedCase] = []
    with prepared.request.bar("maps and measures", tested.count * len(prepared.names)) as progress:
        for measured in prepared.evaluator.measure(tested.batches(), budget, progress.update):
            cases += _without_pictures(measured)
    if not cases:
        raise DataError("no image has anything to explain: none of them has a positive label or a region")
    return cases


def _without_pictures(cases: Cases) -> list[ExplainedCase]:
    # tensors of images and regions would fill the memory over a whole data set
    columns = zip(cases.keys, cases.patients, cases.prediction.tolist(), cases.truth.tolist(), strict=True)
    return [ExplainedCase(*column) for column in columns]


def _assemble(
    prepared: PreparedEvaluation, tuning_cases: Sequence[Key], cases: Sequence[ExplainedCase], checked: Set[Key]
) -> Assembly:
    """Put the records of all methods together.

    Args:
        prepared: the evaluation.
        tuning_cases: of the tuning images.
        cases: to report on.
        checked: cases of the sanity checks.
    """
    settings = prepared.request.settings
    shuffled = prepared.plan.subject.shuffled
    return Assembly(
        records=prepared.evaluator.records,
        methods=list(prepared.evaluator.methods),
        controls=list(prepared.evaluator.controls),
        summaries=CaseSummaries(cases, prepared.plan.subject.class_names, settings.resamples, settings.seed),
        tuning=tuning_cases,
        selected={
            "perturbation": prepared.evaluator.perturbed,
            PARAMETERS: checked,
            # without the other network, figures of an earlier call are not reported
            LABELS: checked if shuffled is not None else set(),
        },
    )


def _write(prepared: PreparedEvaluation, assembly: Assembly) -> Evaluated:
    """Write the result files."""
    folder = prepared.request.folder
    height, width = prepared.images.example.shape[-2:]
    results = _assemble_results(prepared, assembly)
    curves = assembly.curves(height * width, prepared.request.settings.sensitivity_sizes)
    rows = list(assembly.case_rows())
    write_json(folder / "results.json", results.to_json())
    write_curves(folder / "curves.csv", curves)
    write_cases(folder / "per_image.csv", rows)
    return Evaluated(results, curves, list(assembly.cases), rows, prepared.evaluator, prepared.images.tested)


def _assemble_results(prepared: PreparedEvaluation, assembly: Assembly) -> Results:
    tuning = prepared.images.tuning
    protocol = prepared.plan.protocol(
        assembly,
        prepared.regions,
        prepared.fitted.methods,
        prepared.fitted.layers,
        tuning_images=0 if tuning is None else tuning.count,
        limit=prepared.request.limit,
    )
    measured = assembly.measured
    for check in (PARAMETERS, LABELS):
        if check in measured:
            protocol[check] = prepared.evaluator.records.read_metadata(check)
    protocol["empty_maps"] = assembly.empty_maps()
    return results_of(assembly, prepared.plan.kind, prepared.left_out, protocol, prepared.descriptions)
