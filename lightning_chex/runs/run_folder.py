"""Runs: their folders, the record by which an interrupted one is resumed, and a run of a single callback."""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.files import Held, hold, write_whole
from lightning_chex.json_text import load_json
from lightning_chex.lightning_private import CALLBACKS_LEFT_OUT, callbacks_of, is_trial, set_callbacks

RUN_RECORD = "run.json"


def run_folder(trainer: pl.Trainer) -> Path:
    """Return the folder of this run: that of its checkpoints, below the first logger's folder or the root.

    Meant for process 0: in the others a logger may not know the run's name.
    """
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    if isinstance(logger, WandbLogger):
        _ = logger.experiment  # W&B names the run when it begins
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / _version(logger.version)


def check_place(folder: Path, argument: str) -> None:
    """Check, before any long work, that a folder can be made or written to; nothing is left there.

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


class RunRecord(pl.Callback):
    """Lock the run's folder while it trains, and keep ``run.json`` in it.

    ``loggers``: class, name and version of each logger, by which a resumed run writes into the same ones.
    ``finished``: null until the training has ended by itself, then epochs, steps and whether it was stopped early.

    Process 0 alone does all this.
    """

    def __init__(self) -> None:
        self._holding = ExitStack()
        self._held: Held | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lock the folder.

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
        """Begin the record: a training that fails before its first batch cannot be resumed."""
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
        """Unlock the folder."""
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
    if not path.exists():
        return {}
    try:
        record = load_json(path)
        _check_record(record)
    except ValueError as error:
        raise MisconfigurationException(f"cannot read {path} ({error}): remove it") from error
    return record


def _check_record(record: Mapping[str, Any]) -> None:
    """Raise a ValueError unless the values of ``run.json`` have the types that this package writes."""
    finished = record.get("finished")
    if finished is not None:
        counts = isinstance(finished, dict) and all(type(finished.get(key)) is int for key in ("epochs", "steps"))
        if not counts or not isinstance(finished.get("stopped_early"), bool):
            raise ValueError(
                f"'finished' is {finished!r}, neither null nor an object with epochs, steps, stopped_early"
            )
    loggers = record.get("loggers", [])
    if not isinstance(loggers, list):
        raise ValueError(f"'loggers' is {loggers!r}, not a list")
    for logger in loggers:
        if not isinstance(logger, dict):
            raise ValueError(f"'loggers' holds {logger!r}, not an object")
        for key in ("class", "name", "version"):
            value = logger.get(key)
            # name and version are folders below the root, and a resumed run writes there
            if not isinstance(value, str) or Path(value).is_absolute() or ".." in Path(value).parts:
                raise ValueError(f"a logger's {key!r} is {value!r}, not a name below the folder of the runs")


def _version(version: int | str | None) -> str:
    return version if isinstance(version, str) else f"version_{version}"


@contextmanager
def undisturbed(trainer: pl.Trainer, callback: pl.Callback) -> Iterator[None]:
    """Within the context the trainer has only this callback and its progress bar, and no logger.

    A logger would begin a run, and callbacks of the training would write their files or refuse what does not concern
    them.
    """
    callbacks, loggers = callbacks_of(trainer), trainer.loggers
    set_callbacks(trainer, [*(own for own in callbacks if isinstance(own, ProgressBar)), callback])
    trainer.loggers = []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=CALLBACKS_LEFT_OUT)
            yield
    finally:
        set_callbacks(trainer, callbacks)
        trainer.loggers = loggers
