"""Predictions as a table on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lightning_chex.csv_text import csv_lines
from lightning_chex.data.contract import names_of, outputs_of
from lightning_chex.runs.run_folder import run_folder
from lightning_chex.tasks import unrepeated_rows


class PredictionWriter(BasePredictionWriter):
    """Write what ``predict`` computes to ``predictions.csv`` in the run's folder, one row per image.

    Columns: ``image_id``, then one probability per class, or the score, ``severity``, or one column per score. Each
    process of a distributed run writes a file of its own, ``predictions_rank1.csv`` and so on. Rows go to
    ``predictions_unfinished.csv`` as they come; it takes the other name when it is complete.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self.path: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin a new file; it replaces one of the same run."""
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        folder = trainer.strategy.broadcast(run_folder(trainer))
        folder.mkdir(parents=True, exist_ok=True)
        rank = trainer.global_rank
        self.path = folder / ("predictions.csv" if rank == 0 else f"predictions_rank{rank}.csv")
        outputs = outputs_of(pl_module)
        names = outputs.class_names or outputs.score_names
        self._unfinished.write_text(csv_lines([["image_id", *names]]), encoding="utf-8", newline="")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: dict[str, Any],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of one batch: what was written stays, whatever happens later."""
        names = names_of(prediction["image_id"])
        rows = prediction["prediction"]
        counted = unrepeated_rows(trainer, batch, len(names), batch_idx, dataloader_idx).tolist()
        lines = csv_lines(
            [name, *(f"{value:.6g}" for value in values.reshape(-1).tolist())]
            for name, values, own in zip(names, rows, counted, strict=True)
            if own
        )
        with self._unfinished.open("a", encoding="utf-8", newline="") as file:
            file.write(lines)
        if trainer.received_sigterm:  # Lightning's predict loop does not ask
            raise SIGTERMException

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The table is complete."""
        assert self.path is not None
        self._unfinished.replace(self.path)

    @property
    def _unfinished(self) -> Path:
        assert self.path is not None  # set by setup("predict"), which precedes every batch
        return self.path.with_stem(f"{self.path.stem}_unfinished")
