"""Scores of a model and shares of its maps by subgroup of patients: sex, age, view of the image."""

from collections.abc import Iterator, Mapping, Sequence

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import outputs_of
from lightning_chex.estimates import Estimate
from lightning_chex.explanations.image_outputs import OutputsCallback, Said
from lightning_chex.metrics import auroc_estimate, summarize

FEWEST = 10
"""Patients a subgroup must have to be told of: fewer say little, and more of a person than of a group."""


class SubgroupScores(OutputsCallback):
    """Log the model's figures for subgroups of the validation and test images, with 95 % intervals by patient.

    For classes ``val/auroc_by_sex/F`` (mean over the classes that occur there), for scores ``val/mae_by_sex/F``, and
    beside each the ends of its interval, ``_low`` and ``_high``. The data give the groups in ``subgroups``, see
    ``data/sample.py``: those read from NIH's table and from tables of one's own do.

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

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, said: list[Said], stage: str) -> None:
        """Log the figures of all subgroups."""
        told = [own for own in said if own.subgroups is not None]
        if said and not told:
            rank_zero_warn("SubgroupScores logs nothing: the data say nothing of sex, age or view of the images")
        classes = bool(outputs_of(pl_module).class_names)
        several = trainer.world_size > 1  # the values are the same everywhere
        for where, places in grouped([own.subgroups or {} for own in told]).items():
            chosen = [told[place] for place in places]
            if len({own.patient for own in chosen}) < self.fewest:
                continue
            for end, value in ends(_figure(chosen, classes)):
                key = f"{stage}/{'auroc' if classes else 'mae'}_by_{where}{end}"
                pl_module.log(key, value, sync_dist=several)


def grouped(groups: Sequence[Mapping[str, str]]) -> dict[str, list[int]]:
    """Places of the images of each subgroup, by ``ATTRIBUTE/NAME``; those that are not known are in none."""
    found: dict[str, list[int]] = {}
    for place, own in enumerate(groups):
        for attribute, name in own.items():
            if name:
                found.setdefault(f"{attribute}/{name}", []).append(place)
    return dict(sorted(found.items()))


def ends(found: Estimate) -> Iterator[tuple[str, float]]:
    """A value and the ends of its interval that are known, each with what its logged key ends in."""
    if found.known:
        yield "", found.value
        if found.has_interval:
            yield from (("_low", found.ci_low), ("_high", found.ci_high))


def _figure(said: Sequence[Said], classes: bool) -> Estimate:
    patients = [own.patient for own in said]
    if classes:
        return auroc_estimate([own.output for own in said], [own.truth for own in said], patients)
    return summarize([abs(sum(own.output) - sum(own.truth)) for own in said], patients, resamples=500).mean
