"""Where a run keeps its files."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger


def run_folder(trainer: pl.Trainer) -> Path:
    """Return the folder of this run: that of its checkpoints, below the first logger's folder or the root.

    Meant for process 0: in the others a logger may not know the run's name.
    """
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    if isinstance(logger, WandbLogger):
        _ = logger.experiment  # W&B names the run when it begins
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version
