"""Pictures of the lungs a network finds, at every validation."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from lightning_chex.maps import grey_pictures
from lightning_chex.report import LoggerAdapter, Picture, adapters_of
from lightning_chex.report.lungs import lung_overlay, write_lung_sheet
from lightning_chex.runs.run_folder import run_folder


class LungPictures(pl.Callback):
    """Draw predicted and true lungs of the first validation images, as one PNG in the run's folder and by its loggers.

    The file is ``lungs/epoch_000.png`` and so on; loggers get the same pictures as ``val/lungs``, numbered, unnamed.

    Args:
        num_images: how many images, at least 1.

    Raises:
        ValueError: ``num_images`` is less than 1.
    """

    def __init__(self, num_images: int = 18) -> None:
        if num_images < 1:
            raise ValueError(f"num_images is {num_images}: give at least 1")
        self.num_images = num_images
        self._overlays: list[NDArray[np.uint8]] = []
        self._adapters: list[LoggerAdapter] | None = None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw what is still wanted of a batch; process 0 sees enough of them."""
        missing = self.num_images - len(self._overlays)
        if trainer.sanity_checking or not trainer.is_global_zero or missing < 1:
            return
        predicted = pl_module.predict_step(batch, batch_idx)["lung_mask"]
        pictures = grey_pictures(batch["image"][:missing])
        for grey, lungs, truth in zip(pictures, predicted, batch["lung_mask"], strict=False):
            self._overlays.append(lung_overlay(grey, lungs.cpu(), truth.cpu()))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and log the pictures."""
        overlays = self._overlays
        self._overlays = []
        if not overlays:
            return
        label = f"epoch_{trainer.current_epoch:03d}" if trainer.state.fn == "fit" else "validate"
        title = f"lungs, {label.replace('_', ' ')}: found (tinted) and true (outlined)"
        write_lung_sheet(overlays, run_folder(trainer) / "lungs" / f"{label}.png", title)
        if self._adapters is None:
            self._adapters = adapters_of(trainer.loggers)
        pictures = [Picture(str(number), overlay, overlay) for number, overlay in enumerate(overlays)]
        for adapter in self._adapters:
            adapter.pictures("val/lungs", pictures, trainer.global_step)
