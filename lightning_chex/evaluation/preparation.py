"""Preparation of an evaluation: images, methods, controls and records, checked before the first map is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from tqdm import tqdm

from lightning_chex.attribution import Attributor, EveryPixel, RandomMap
from lightning_chex.attribution.description import MethodDescription
from lightning_chex.data.adapter import adapted, name_of
from lightning_chex.data.contract import XrayDataModule, lacks
from lightning_chex.evaluation.evaluator import LUNG_FIELD, Control, Evaluator, control_of, lung_field
from lightning_chex.evaluation.fitting import FittedMethods, fit_methods
from lightning_chex.evaluation.methods import choose_methods
from lightning_chex.evaluation.plan import Plan
from lightning_chex.evaluation.randomization import LABELS, refuse_other_labels
from lightning_chex.evaluation.records import Records
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.evaluation.subject import Images, Subject, tuning_half
from lightning_chex.evaluation.tuning import TuningRegions
from lightning_chex.maps import LungFinder, RegionKind, describe, region_kind

BOX_FRACTION = 0.05
"""Share of the pixels that is marked where there is no tuning region to take the size of."""


@dataclass(frozen=True)
class Request:
    """The options of one call of ``evaluate``.

    Attributes:
        folder: for the results.
        methods: see ``choose_methods``.
        limit: images at most; None for all.
        settings: of the evaluation.
        find_lungs: outlines lungs of images without masks, or None.
        show_progress: draw progress bars.
    """

    folder: Path
    methods: Sequence[str] | None
    limit: int | None
    settings: EvaluationSettings
    find_lungs: LungFinder | None
    show_progress: bool

    def bar(self, description: str, total: float) -> Any:
        """Return a progress bar over maps, a context manager."""
        return tqdm(total=total, desc=description, unit="map", disable=not self.show_progress, smoothing=0.05)


@dataclass(frozen=True)
class EvaluationImages:
    """The images of an evaluation.

    Attributes:
        data: the data module.
        tested: images to report on.
        tuning: images to tune thresholds on; None without any.
        no_tuning_reason: why there are none; empty if there are.
        example: one of the images to report on, on the device, (1, C, H, W).
        kind: regions that maps are compared with.
        has_masks: whether the data set outlines lungs.
    """

    data: XrayDataModule
    tested: Images
    tuning: Images | None
    no_tuning_reason: str
    example: Tensor
    kind: RegionKind
    has_masks: bool


@dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation that is ready to run.

    Attributes:
        request: the options of the call.
        images: to report on and to tune on.
        regions: size and location of the tuning regions.
        evaluator: with plan, fitted methods, controls and records.
        fitted: fitted and unfitted methods, and those left out.
        left_out: why methods and controls are missing, by name.
        descriptions: of methods and controls, by name.
    """

    request: Request
    images: EvaluationImages
    regions: TuningRegions
    evaluator: Evaluator
    fitted: FittedMethods
    left_out: Mapping[str, str]
    descriptions: Mapping[str, MethodDescription]

    @property
    def plan(self) -> Plan:
        """Model, data and settings."""
        return self.evaluator.plan

    @property
    def names(self) -> list[str]:
        """Names of methods and controls."""
        return [*self.evaluator.methods, *self.evaluator.controls]


def prepare(subject: Subject, datamodule: pl.LightningDataModule, request: Request) -> PreparedEvaluation:
    """Read the data, choose and fit the methods, and open the records.

    Args:
        subject: the model.
        datamodule: see ``evaluate``.
        request: the options of the call.

    Raises:
        DataError: there is no image to explain.
        ValueError: see ``evaluate``.
    """
    images = _read_images(subject, datamodule, request)
    chosen, left_out = choose_methods(
        names=request.methods,
        layer=subject.layer,
        network=subject.network,
        images=images.example,
        score=not subject.class_names,
        seed=request.settings.seed,
    )
    regions = TuningRegions(images.tuning, subject.class_names, images.kind, request.find_lungs)
    plan = _plan(subject, images, regions, request)
    records = _open_records(plan, request.folder, chosen)
    fitted = _fit(chosen, plan, images.example, request, records)
    left_out |= fitted.left_out
    for name, reason in left_out.items():
        rank_zero_warn(f"{name} is left out: {reason}")
    if regions.prior is None:
        # not in the warnings above: the user did not ask for this control
        left_out["PriorMap"] = images.no_tuning_reason or "no tuning image has a region"
    controls, descriptions = _controls(plan, regions)
    if images.tuning is not None:
        # regions are taken from the whole half, which is cheap; thresholds need maps
        images.tuning.count = min(images.tuning.count, request.settings.tuned(request.limit))
    return PreparedEvaluation(
        request=request,
        images=images,
        regions=regions,
        evaluator=Evaluator(plan, fitted.methods, controls, records),
        fitted=fitted,
        left_out=left_out,
        descriptions={name: method.about() for name, method in fitted.methods.items()} | descriptions,
    )


def _read_images(subject: Subject, datamodule: pl.LightningDataModule, request: Request) -> EvaluationImages:
    data = adapted(datamodule)
    data.look()
    # not an error: a network with global pooling accepts any size, but its figures depend on it
    if subject.trained_size not in (None, data.size):
        print(
            f"the model was trained on images of {subject.trained_size} px and is evaluated at {data.size} px",
            flush=True,
        )
    explained = data.explained_dataset("test")
    if explained is None:
        raise lacks(name_of(data), "explained_dataset", "evaluate")
    tested = Images(data, explained, subject, request.limit)
    tuning, no_tuning_reason = tuning_half(data, subject)
    sample = tested.first()
    kind = region_kind(sample, subject.class_names, request.settings.regions)
    example = subject.move(data.collate([sample]))["image"]
    _check_pixels(request.settings, example)
    return EvaluationImages(data, tested, tuning, no_tuning_reason, example, kind, has_masks="lung_mask" in sample)


def _check_pixels(settings: EvaluationSettings, example: Tensor) -> None:
    """Raise a ValueError for settings that do not suit the size of the images."""
    height, width = example.shape[-2:]
    # the half range of insertion and deletion needs a whole step
    if settings.step is not None and settings.step > height * width // 2:
        raise ValueError(
            f"step={settings.step!r} is more than half of the {height} x {width} pixels of these images: give fewer"
        )
    # the blur reflects the image at its edges, which needs that many pixels
    if settings.blur_kernel // 2 >= min(height, width):
        raise ValueError(
            f"blur_kernel={settings.blur_kernel!r} is too large for images of {height} x {width} pixels: give less "
            f"than {2 * min(height, width)}"
        )


def _plan(subject: Subject, images: EvaluationImages, regions: TuningRegions, request: Request) -> Plan:
    return Plan(
        subject=subject,
        data=images.data,
        settings=request.settings,
        kind=images.kind,
        fraction=request.settings.top_fraction or regions.share or BOX_FRACTION,
        image=tuple(images.example.shape[1:]),
        find_lungs=request.find_lungs,
        has_masks=images.has_masks,
    )


def _open_records(plan: Plan, folder: Path, methods: Mapping[str, Attributor]) -> Records:
    """Open or resume the records of a folder, and register the methods in it."""
    records = Records(folder, plan.identity())
    # before any method is fitted: a different network makes the whole call pointless
    if plan.subject.shuffled is not None:
        refuse_other_labels(records.read_metadata(LABELS), plan.subject.shuffled)
    for name, method in methods.items():
        records.register_method(name, describe(method))
    return records


def _fit(
    methods: Mapping[str, Attributor], plan: Plan, example: Tensor, request: Request, records: Records
) -> FittedMethods:
    """Fit the methods, and remove those from the records that cannot be fitted."""
    fitted = fit_methods(methods, plan, example, request.folder, are_named=request.methods is not None)
    for name in fitted.left_out:
        # a later call with training images may have other settings for it
        records.remove_method(name)
    return fitted


def _controls(plan: Plan, regions: TuningRegions) -> tuple[dict[str, Control], dict[str, MethodDescription]]:
    """Controls and their descriptions, by name."""
    methods: dict[str, Attributor] = {"EveryPixel": EveryPixel(), "RandomMap": RandomMap(plan.settings.seed)}
    if regions.prior is not None:
        methods["PriorMap"] = regions.prior
    controls: dict[str, Control] = {name: control_of(method) for name, method in methods.items()}
    descriptions = {name: method.about() for name, method in methods.items()}
    # only zones are made of lungs; beside boxes the control would say little
    if plan.kind == "zones" and (plan.find_lungs is not None or plan.has_masks):
        controls["LungField"] = lung_field
        descriptions["LungField"] = LUNG_FIELD
    return controls, descriptions
