"""Collection of the model's outputs for all validation or test images, for callbacks that compute scores from them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_chex.data.contract import names_of, subgroups_of_batch
from lightning_chex.explanations.processes import gathered_rows
from lightning_chex.tasks import unrepeated_rows


class ImageOutput(NamedTuple):
    """Outputs, target, patient id and subgroups of one image."""

    output: list[float]
    truth: list[float]
    patient: str
    subgroups: dict[str, str] | None


class ImageOutputsCallback(pl.Callback):
    """Keeps the model's output for each image of a validation or test; subclasses measure them at its end.

    The task must return ``{"output": ..., "truth": ...}`` from its validation and test steps, as ChestXrayTask does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[ImageOutput] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the state of an interrupted validation."""
        self._kept = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the state of an interrupted test."""
        self._kept = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the outputs of a batch."""
        self._keep(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the outputs of a batch."""
        self._keep(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the outputs of the validation."""
        if not trainer.sanity_checking:
            self.measure(trainer, pl_module, self._all_outputs(), "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the outputs of the test."""
        self.measure(trainer, pl_module, self._all_outputs(), "test")

    def measure(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: list[ImageOutput], stage: str
    ) -> None:
        """Measure the outputs for the images of all processes, each image once; every process calls this.

        ``stage`` is ``val`` or ``test``, the first part of logged keys.
        """
        raise NotImplementedError

    def _all_outputs(self) -> list[ImageOutput]:
        outputs = gathered_rows(self._kept)
        self._kept = []
        # sorted, because bootstrapped intervals depend on the order, which depends on the number of processes
        return sorted(outputs, key=lambda output: (output.patient, output.output, output.truth))

    def _keep(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if trainer.sanity_checking:
            return
        if not isinstance(outputs, Mapping) or not {"output", "truth"} <= outputs.keys():
            raise MisconfigurationException(
                f"{type(self).__name__} needs steps of {type(pl_module).__name__} that return the dict "
                "{'output': ..., 'truth': ...} of a batch, as ChestXrayTask's do; leave the callback out otherwise"
            )
        count = len(batch["image"])
        # the steps return rows without the repeated ones, so they are paired with the remaining rows of the batch
        rows = unrepeated_rows(trainer, batch, count, batch_idx, dataloader_idx).nonzero().flatten().tolist()
        ids = names_of(batch.get("patient_id", batch.get("image_id", list(range(count)))))
        groups = subgroups_of_batch(batch)
        for output, truth, row in zip(_flat(outputs["output"]), _flat(outputs["truth"]), rows, strict=True):
            subgroups = None if groups is None else groups[row]
            self._kept.append(ImageOutput(output, truth, str(ids[row]), subgroups))


def _flat(values: Tensor) -> list[list[float]]:
    """Rows of a tensor (B, ...) as lists; a batch may be empty after its repeated rows are left out."""
    if len(values) == 0:
        return []
    return values.detach().float().reshape(len(values), -1).cpu().tolist()
