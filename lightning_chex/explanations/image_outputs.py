"""Collection of the model's outputs for all validation or test images, for callbacks that compute scores from them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_chex.data.contract import names_of, subgroups_of_batch
from lightning_chex.explanations.processes import gathered_rows
from lightning_chex.tasks import unrepeated_rows


class Said(NamedTuple):
    """Outputs, target, patient id and subgroups of one image."""

    output: list[float]
    truth: list[float]
    patient: str
    subgroups: dict[str, str] | None


class OutputsCallback(pl.Callback):
    """Keeps what the model says of each image of a validation or test; a child measures it at the end of it.

    The task must return ``{"output": ..., "truth": ...}`` from its validation and test steps, as ChestXrayTask does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Said] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what a validation that broke off has left."""
        self._kept = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what a test that broke off has left."""
        self._kept = []

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
        """Measure all of it."""
        if not trainer.sanity_checking:
            self.measure(trainer, pl_module, self._said(), "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure all of it."""
        self.measure(trainer, pl_module, self._said(), "test")

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, said: list[Said], stage: str) -> None:
        """Measure what the model said of the images of all processes, each once; every process calls this.

        ``stage`` is ``val`` or ``test``, the first part of logged keys.
        """
        raise NotImplementedError

    def _said(self) -> list[Said]:
        # in an order that does not depend on the number of processes, as intervals do on it
        said, self._kept = gathered_rows(self._kept), []
        return sorted(said, key=lambda own: (own.patient, own.output, own.truth))

    def _keep(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, loader: int
    ) -> None:
        if trainer.sanity_checking:
            return
        if not isinstance(outputs, Mapping) or not {"output", "truth"} <= outputs.keys():
            raise MisconfigurationException(
                f"{type(self).__name__} needs steps of {type(pl_module).__name__} that return the dict "
                "{'output': ..., 'truth': ...} of a batch, as ChestXrayTask's do; leave the callback out otherwise"
            )
        count = len(batch["image"])
        counted = unrepeated_rows(trainer, batch, count, batch_idx, loader).nonzero().flatten().tolist()
        ids = names_of(batch.get("patient_id", batch.get("image_id", list(range(count)))))
        groups = subgroups_of_batch(batch)
        said, truth = (_flat(outputs[key]) for key in ("output", "truth"))
        for output, own, row in zip(said, truth, counted, strict=True):
            self._kept.append(Said(output, own, str(ids[row]), None if groups is None else groups[row]))


def _flat(values: Tensor) -> list[list[float]]:
    return values.detach().float().reshape(len(values), -1).cpu().tolist() if len(values) else []
