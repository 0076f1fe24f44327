"""How well a model does, and where its maps lie, by subgroup of patients: sex, age, view of the image."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_chex.callbacks.processes import gathered_rows
from lightning_chex.data.contract import names_of, outputs_of, subgroups_of_batch
from lightning_chex.estimates import Estimate
from lightning_chex.metrics import auroc_estimate, summarize
from lightning_chex.tasks import unrepeated_rows

FEWEST = 10
"""Patients a subgroup must have to be told of: fewer say little, and more of a person than of a group."""


class SubgroupScores(pl.Callback):
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
        self._seen: list[tuple[list[float], list[float], str, dict[str, str]]] = []
        self._lacking = False

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keep what the model says of a batch."""
        self._keep(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keep what the model says of a batch."""
        self._keep(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures of all subgroups."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures of all subgroups."""
        self._log(trainer, pl_module, "test")

    def _keep(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, loader: int
    ) -> None:
        if trainer.sanity_checking:
            return
        groups = subgroups_of_batch(batch)
        if groups is None:
            self._lacking = True
            return
        if not isinstance(outputs, Mapping) or not {"output", "truth"} <= outputs.keys():
            raise MisconfigurationException(
                f"SubgroupScores needs a validation_step of {type(pl_module).__name__} that returns the dict "
                "{'output': ..., 'truth': ...} of a batch, as ChestXrayTask's does; leave the callback out otherwise"
            )
        counted = unrepeated_rows(trainer, batch, len(batch["image"]), batch_idx, loader).nonzero().flatten().tolist()
        said, truth = (_flat(pl_module, outputs[key]) for key in ("output", "truth"))
        patients = names_of(batch["patient_id"]) if "patient_id" in batch else names_of(batch["image_id"])
        for output, own, row in zip(said, truth, counted, strict=True):
            self._seen.append((output, own, patients[row], groups[row]))

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prefix: str) -> None:
        if trainer.sanity_checking:
            return
        # in an order that does not depend on the number of processes, as intervals do on it
        rows, self._seen = sorted(gathered_rows(self._seen), key=lambda row: (row[2], row[:2])), []
        if not rows:
            if self._lacking:
                rank_zero_warn("SubgroupScores logs nothing: the data say nothing of sex, age or view of the images")
            return
        scored = bool(outputs_of(pl_module).class_names)
        several = trainer.world_size > 1  # the values are the same everywhere
        for where, own in grouped([groups for *_, groups in rows]).items():
            chosen = [rows[i] for i in own]
            patients = [patient for _, _, patient, _ in chosen]
            if len(set(patients)) < self.fewest:
                continue
            found = _figure([own[0] for own in chosen], [own[1] for own in chosen], patients, scored)
            for end, value in ends(found):
                key = f"{prefix}/{'auroc' if scored else 'mae'}_by_{where}{end}"
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


def _figure(said: list[list[float]], truth: list[list[float]], patients: list[str], scored: bool) -> Estimate:
    if scored:
        return auroc_estimate(said, truth, patients)
    return summarize([abs(sum(a) - sum(b)) for a, b in zip(said, truth, strict=True)], patients, resamples=500).mean


def _flat(pl_module: pl.LightningModule, values: Tensor) -> list[list[float]]:
    return values.detach().float().reshape(len(values), -1).cpu().tolist() if len(values) else []
