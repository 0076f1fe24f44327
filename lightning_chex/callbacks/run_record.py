"""What going on with an interrupted run needs to know, in the run's folder, which one process holds at a time."""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.callbacks.run_folder import run_folder
from lightning_chex.files import Held, hold, write_whole
from lightning_chex.lightning_private import is_trial

RUN_RECORD = "run.json"


class RunRecord(pl.Callback):
    """Hold the run's folder while it trains, and keep ``run.json`` in it.

    ``loggers``: class, name and version of each logger, by which a resumed run writes into the same ones.
    ``finished``: null until the training has ended by itself, then epochs, steps and whether it was stopped early.

    Process 0 alone does all this.
    """

    def __init__(self) -> None:
        self._holding = ExitStack()
        self._held: Held | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hold the folder.

        Raises:
            MisconfigurationException: another process trains there, or the folder cannot be written to.
        """
        if stage != "fit" or not trainer.is_global_zero or is_trial(trainer):
            return
        folder = run_folder(trainer)
        try:
            self._held = self._holding.enter_context(hold(folder))
        except OSError as error:
            raise MisconfigurationException(
                f"{error.filename}: {error.strerror}; give another --trainer.default_root_dir"
            ) from error

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the record: what fails before the first batch is no run to go on with."""
        if self._held is not None:
            self._write(trainer, None)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make sure that the folder is still there: a training whose files are gone shall not seem to succeed.

        Raises:
            MisconfigurationException: it was removed.
        """
        self._check()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the training is complete."""
        if self._held is not None:
            self._check()
            limits = (trainer.max_epochs, trainer.max_steps)
            reached = trainer.current_epoch == limits[0] or trainer.global_step == limits[1]
            done = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
            self._write(trainer, done | {"stopped_early": bool(trainer.should_stop and not reached)})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how to go on."""
        if self._held is not None and any((self._held.folder / "checkpoints").glob("*.ckpt")):
            place = f"stopped in epoch {trainer.current_epoch} at step {trainer.global_step}"
            print(f"{place}: fit --ckpt_path {self._held.folder} goes on from the newest state there", file=sys.stderr)
        self._holding.close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the folder go."""
        self._holding.close()

    def _check(self) -> None:
        if self._held is None:
            return
        try:
            self._held.check()
        except FileNotFoundError as error:
            raise MisconfigurationException(
                f"{error.filename}: {error.strerror}; its checkpoints are lost: begin again"
            ) from error

    def _write(self, trainer: pl.Trainer, finished: Mapping[str, Any] | None) -> None:
        assert self._held is not None
        loggers = [
            {"class": type(logger).__name__, "name": str(logger.name), "version": _version(logger.version)}
            for logger in trainer.loggers
        ]
        text = json.dumps({"loggers": loggers, "finished": finished}, indent=1) + "\n"
        write_whole(self._held.folder / RUN_RECORD, text, sync=True)


def read_record(folder: Path) -> dict[str, Any]:
    """Read ``run.json``; empty where there is none, as in folders of older versions."""
    path = folder / RUN_RECORD
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise MisconfigurationException(f"cannot read {path} ({error}): remove it") from error


def _version(version: int | str | None) -> str:
    return version if isinstance(version, str) else f"version_{version}"
