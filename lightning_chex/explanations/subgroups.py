"""Scores of a model and shares of its maps by subgroup of patients: sex, age, view of the image."""

from collections.abc import Iterator, Mapping, Sequence

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import outputs_of
from lightning_chex.estimates import Estimate
from lightning_chex.explanations.image_outputs import ImageOutput, ImageOutputsCallback
from lightning_chex.metrics import auroc_estimate, summarize

FEWEST = 10
"""Patients a subgroup needs to be logged: figures of fewer are imprecise and could identify a person."""


class SubgroupScores(ImageOutputsCallback):
    """Log the model's figures for subgroups of the validation and test images, with 95 % intervals by patient.

    For classes ``val/auroc_by_sex/F`` (mean over the classes that occur there), for scores ``val/mae_by_sex/F``, and
    beside each the limits of its interval, ``_low`` and ``_high``. The data give the groups in ``subgroups``, see
    ``data/sample.py``, as those read from NIH's table and from custom tables do.

    Args:
        fewest: patients that a subgroup must have, at least 2; smaller ones are not logged.

    Raises:
        ValueError: ``fewest`` below 2.
    """

    def __init__(self, fewest: int = FEWEST) -> None:
        super().__init__()
        if fewest < 2:
            raise ValueError(f"fewest is {fewest}: give at least 2 patients")
        self.fewest = fewest

    def measure(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: list[ImageOutput], stage: str
    ) -> None:
        """Log the figures of all subgroups."""
        with_subgroups = [output for output in outputs if output.subgroups is not None]
        if outputs and not with_subgroups:
            rank_zero_warn("SubgroupScores logs nothing: the data have no sex, age or view of the images")
        has_classes = bool(outputs_of(pl_module).class_names)
        figure = "auroc" if has_classes else "mae"
        for subgroup, rows in grouped([output.subgroups or {} for output in with_subgroups]).items():
            members = [with_subgroups[row] for row in rows]
            if len({output.patient for output in members}) < self.fewest:
                continue
            for ending, value in interval_figures(_estimate(members, has_classes)):
                # the value is the same in all processes; without sync_dist Lightning would warn
                pl_module.log(f"{stage}/{figure}_by_{subgroup}{ending}", value, sync_dist=trainer.world_size > 1)


def grouped(groups: Sequence[Mapping[str, str]]) -> dict[str, list[int]]:
    """Indices of the images of each subgroup, by ``ATTRIBUTE/NAME``; unknown values are in no subgroup."""
    indices: dict[str, list[int]] = {}
    for index, subgroups in enumerate(groups):
        for attribute, name in subgroups.items():
            if name:
                indices.setdefault(f"{attribute}/{name}", []).append(index)
    return dict(sorted(indices.items()))


def interval_figures(estimate: Estimate) -> Iterator[tuple[str, float]]:
    """An estimate and the limits of its interval, as far as they are known, each with the ending of its logged key."""
    if not estimate.known:
        return
    yield "", estimate.value
    if estimate.has_interval:
        yield "_low", estimate.ci_low
        yield "_high", estimate.ci_high


def _estimate(outputs: Sequence[ImageOutput], has_classes: bool) -> Estimate:
    patients = [output.patient for output in outputs]
    if has_classes:
        return auroc_estimate([output.output for output in outputs], [output.truth for output in outputs], patients)
    errors = [abs(sum(output.output) - sum(output.truth)) for output in outputs]
    return summarize(errors, patients, resamples=500).mean
