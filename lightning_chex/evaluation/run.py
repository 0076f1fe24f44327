"""One evaluation from beginning to end: preparation, measurement, result files."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from lightning_chex.attribution import Attributor, EveryPixel, RandomMap
from lightning_chex.data.adapter import adapted, name_of
from lightning_chex.data.contract import DataError, lacks
from lightning_chex.evaluation.assembly import Assembly, Explained, Row
from lightning_chex.evaluation.evaluator import LUNG_FIELD, Control, Evaluator, control_of, lung_field
from lightning_chex.evaluation.learning import learn
from lightning_chex.evaluation.methods import choose_methods
from lightning_chex.evaluation.plan import Plan
from lightning_chex.evaluation.randomization import (
    LABELS,
    PARAMETERS,
    randomize_labels,
    randomize_parameters,
    refuse_other_labels,
)
from lightning_chex.evaluation.records import Records
from lightning_chex.evaluation.results import results_of, write_cases, write_curves, write_json
from lightning_chex.evaluation.settings import EvaluationSettings, Share
from lightning_chex.evaluation.tuning import TuningRegions
from lightning_chex.evaluation.untrained import stages
from lightning_chex.explaining import (
    Cases,
    Images,
    Key,
    LungFinder,
    Subject,
    describe,
    region_kind,
    training_batches,
    tuning_half,
)
from lightning_chex.reporting import Curve, Results

RANDOMIZATION_IMAGES = 64
"""Images that a network of random weights is calibrated on, and its bottlenecks learn from."""

BOX_FRACTION = 0.05
"""Share of the pixels that is marked where no tuning region says how large regions are."""


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        results: what ``results.json`` holds.
        curves: what ``curves.csv`` holds, one a method and kind.
        cases: what was explained.
        rows: what ``per_image.csv`` holds, one a method and case.
        evaluator: with the methods, controls and records, for pictures.
        images: that were explained.
    """

    results: Results
    curves: list[Curve]
    cases: list[Explained]
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
    """Compare methods on a trained model, and write what came out; see ``ChexTrainer.evaluate``.

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
    settings = EvaluationSettings() if settings is None else settings
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit!r} must be at least 1 image, or left out for all")
    data = adapted(datamodule)
    data.look()
    if subject.trained_size not in (None, data.size):
        print(
            f"the model was trained on images of {subject.trained_size} px and is evaluated at {data.size} px",
            flush=True,
        )
    explained = data.explained_dataset("test")
    if explained is None:
        raise lacks(name_of(data), "explained_dataset", "evaluate")
    tested = Images(data, explained, subject, limit)
    tuning, why_not = tuning_half(data, subject)
    sample = tested.first()
    kind = region_kind(sample, subject.class_names, settings.regions)
    example = subject.move(data.collate([sample]))["image"]
    _check_pixels(settings, example)
    chosen, left_out = choose_methods(
        methods, subject.layer, subject.network, example, not subject.class_names, settings.seed
    )
    regions = TuningRegions(tuning, subject.class_names, kind, find_lungs)
    fraction = settings.top_fraction or regions.share or BOX_FRACTION
    has_masks = "lung_mask" in sample
    plan = Plan(subject, data, settings, kind, fraction, tuple(example.shape[1:]), find_lungs, has_masks)
    records = Records(folder, plan.identity())
    if subject.shuffled is not None:
        refuse_other_labels(records.noted(LABELS), subject.shuffled)
    for name, method in chosen.items():
        records.admit(name, describe(method))
    unfitted = {name: copy.deepcopy(method) for name, method in chosen.items()}
    statistics = learn(chosen, left_out, methods is not None, subject, data, example, settings, folder)
    for name in unfitted.keys() - chosen.keys():  # what is left out is left out everywhere
        del unfitted[name]
        records.dismiss(name)
    for name, reason in left_out.items():
        rank_zero_warn(f"{name} is left out: {reason}")
    control_methods: dict[str, Attributor] = {"EveryPixel": EveryPixel(), "RandomMap": RandomMap(settings.seed)}
    if regions.prior is not None:
        control_methods["PriorMap"] = regions.prior
    else:
        left_out["PriorMap"] = why_not or "no tuning image has a region"
    controls: dict[str, Control] = {name: control_of(method) for name, method in control_methods.items()}
    descriptions = {name: method.about() for name, method in (chosen | control_methods).items()}
    if kind == "zones" and (find_lungs is not None or has_masks):
        controls["LungField"] = lung_field
        descriptions["LungField"] = LUNG_FIELD
    evaluator = Evaluator(plan, chosen, controls, records)
    names = [*chosen, *controls]

    def bar(description: str, total: float) -> Any:
        return tqdm(total=total, desc=description, unit="map", disable=not show_progress, smoothing=0.05)

    tuned_on: list[Key] = []
    if tuning is not None:
        tuning.count = min(tuning.count, settings.tuned(limit))
        with bar("thresholds, on the tuning half", tuning.count * len(names)) as progress:
            tuned_on = evaluator.tune(tuning.batches(), progress.update)
    cases: list[Explained] = []
    with bar("maps and measures", tested.count * len(names)) as progress:
        for found in evaluator.measure(tested.batches(), settings.perturbed(limit), progress.update):
            cases += [_explained(found, i) for i in range(len(found))]
    if not cases:
        raise DataError("no image has anything to explain: none of them carries a positive label or a region")
    randomized = _randomize(evaluator, unfitted, tested, tuning, settings.randomized(limit), bar)

    assembly = Assembly(
        records,
        list(chosen),
        list(controls),
        cases,
        subject.class_names,
        tuned_on,
        {
            "perturbation": evaluator.perturbed,
            PARAMETERS: randomized,
            LABELS: randomized if subject.shuffled is not None else set(),
        },
        settings.resamples,
        settings.seed,
    )
    account = plan.account(
        cases,
        evaluator.perturbed,
        statistics,
        chosen,
        assembly.levels,
        regions,
        0 if tuning is None else tuning.count,
        limit,
    )
    account |= {check: records.noted(check) for check in (PARAMETERS, LABELS) if check in assembly.measured}
    account["empty_maps"] = {
        name: {"empty": int(sum(values)), "maps": len(values), "in_means": True}
        for name in chosen
        if (values := [value for value in assembly.values(name, "empty") if value == value])
    }
    results = results_of(assembly, kind, left_out, account, descriptions)
    curves = assembly.curves(example.shape[-2] * example.shape[-1], settings.sensitivity_sizes)
    write_json(folder / "results.json", results.to_json())
    write_curves(folder / "curves.csv", curves)
    rows = list(assembly.case_rows())
    write_cases(folder / "per_image.csv", rows)
    return Evaluated(results, curves, cases, rows, evaluator, tested)


def _check_pixels(settings: EvaluationSettings, example: Tensor) -> None:
    height, width = example.shape[-2:]
    if settings.step is not None and settings.step > height * width // 2:
        raise ValueError(f"step={settings.step!r} is more than half of the {height} x {width} pixels of these images")
    if settings.blur_kernel // 2 >= min(height, width):
        raise ValueError(f"blur_kernel={settings.blur_kernel!r} is too large for images of {height} x {width} pixels")


def _randomize(
    evaluator: Evaluator,
    unfitted: Mapping[str, Attributor],
    tested: Images,
    tuning: Images | None,
    share: Share,
    bar: Callable[[str, float], Any],
) -> set[Key]:
    """Make the sanity checks on the first images; methods that find nothing to learn from are passed over.

    Returns:
        The cases of these images.
    """
    subject = tested.subject
    images = Images(tested.data, tested.dataset, subject, int(min(share.images, tested.count)))
    # one batch, so that every stage of the network is set up once
    batch = next(images.batches(max(1, images.count)), None)
    if batch is None:
        return set()
    cases = evaluator.cases(batch)
    taken = share.take(cases.rows.tolist())
    cases = cases.select([i for i, row in enumerate(cases.rows.tolist()) if row in taken])
    offer = training_batches(tested.data, RANDOMIZATION_IMAGES, evaluator.settings.seed)
    others = _first(offer() if offer is not None else () if tuning is None else _images_of(tuning), subject.device)
    learning = len(others) >= 2
    if not learning:  # for the calibration and the spread of the outputs those explained will do
        others = _first(_images_of(Images(tested.data, tested.dataset, subject)), subject.device)
    if len(others) < 2:
        rank_zero_warn("there are fewer than two images to calibrate a network of random weights on: no sanity check")
        return set()
    chosen = {name: method for name, method in unfitted.items() if learning or method.num_observed is None}
    with bar("randomised weights", len(stages(100)) * len(chosen)) as progress:
        randomize_parameters(evaluator, chosen, cases, others, subject.build, progress.update)
    if subject.shuffled is not None:
        with bar("shuffled labels", len(chosen)) as progress:
            randomize_labels(evaluator, chosen, cases, others, subject.shuffled, progress.update)
    return set(cases.keys)


def _images_of(images: Images) -> Iterator[Tensor]:
    return (batch["image"] for batch in images.batches())


def _first(batches: Iterable[Tensor], device: torch.device) -> Tensor:
    """The first images, (N, C, H, W)."""
    found: list[Tensor] = []
    for batch in batches:
        found.append(batch.to(device))
        if sum(map(len, found)) >= RANDOMIZATION_IMAGES:
            break
    return torch.cat(found)[:RANDOMIZATION_IMAGES] if found else torch.zeros(0)


def _explained(cases: Cases, i: int) -> Explained:
    return Explained(cases.keys[i], cases.patients[i], float(cases.prediction[i]), float(cases.truth[i]))
