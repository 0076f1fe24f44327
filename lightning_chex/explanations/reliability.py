"""Reliability diagrams of a classifier at every validation."""

import numpy as np
import pytorch_lightning as pl

from lightning_chex.data.contract import lacks, outputs_of
from lightning_chex.explanations.image_outputs import ImageOutput, ImageOutputsCallback
from lightning_chex.lightning_private import is_trial
from lightning_chex.report import LoggerAdapter, adapters_of, reliability_diagram, write_figure
from lightning_chex.runs.run_folder import run_folder


class ReliabilityDiagram(ImageOutputsCallback):
    """Draw for each class the observed frequency over the predicted probability.

    The file is ``reliability/epoch_000.png`` in the run's folder, and so on; loggers get it as ``val/reliability``. The
    expected calibration error of ``val/ece`` is the mean distance of the points from the diagonal.

    Raises:
        MisconfigurationException: the model has no classes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._adapters: list[LoggerAdapter] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a model of scores before any data are read."""
        if not outputs_of(pl_module).class_names:
            raise lacks(type(pl_module).__name__, "class_names", "ReliabilityDiagram")

    def measure(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: list[ImageOutput], stage: str
    ) -> None:
        """Write and log the diagram, in process 0 only."""
        if not outputs or not trainer.is_global_zero or is_trial(trainer):
            return
        logits = np.array([output.output for output in outputs], dtype=np.float64)
        probabilities = 1 / (1 + np.exp(-logits))
        labels = np.array([output.truth for output in outputs], dtype=np.float64)
        label = f"epoch_{trainer.current_epoch:03d}" if trainer.state.fn == "fit" else stage
        title = f"reliability, {label.replace('_', ' ')}, {len(outputs):,} images"
        drawn = reliability_diagram(probabilities, labels, outputs_of(pl_module).class_names, title)
        path = run_folder(trainer) / "reliability" / f"{label}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_figure(path, drawn, dpi=110)
        if self._adapters is None:
            self._adapters = adapters_of(trainer.loggers)
        for adapter in self._adapters:
            adapter.file(f"{stage}/reliability", path, trainer.global_step)
