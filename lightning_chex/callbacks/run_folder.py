"""Where a run keeps its files."""

import os
from pathlib import Path
from tempfile import TemporaryFile

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException


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


def check_place(folder: Path, argument: str) -> None:
    """See, before any long work, that a folder can be made or written to; nothing is left there.

    Args:
        folder: it need not exist.
        argument: what the user gave it as, for the message.

    Raises:
        MisconfigurationException: it cannot.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    try:
        folder.exists()  # refuses names that are too long
        TemporaryFile(dir=there).close()
    except OSError as error:
        raise MisconfigurationException(
            f"{argument}={str(folder)!r} cannot be written to ({error.strerror}): give another folder"
        ) from error
