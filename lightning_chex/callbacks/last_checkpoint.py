"""The newest whole state of a training, always on disk."""

import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lightning_chex.callbacks.runs import RunRecord, run_folder
from lightning_chex.files import write_whole
from lightning_chex.lightning_private import callbacks_of, is_trial


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, also where the folder for temporary files is on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one; addresses of remote storage are left to the parent."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: torch.save(checkpoint, file), sync=True)


class LastCheckpoint(Checkpoint):
    """Keep the state after the newest epoch in ``checkpoints/last.ckpt`` of the run's folder.

    Lightning's ``ModelCheckpoint(monitor=..., save_last=True)`` writes ``last.ckpt`` only when the best improved. This
    one writes at the end of every epoch, validation included, and in mid-epoch when the process is asked to end by
    SIGTERM. With the random state it holds, a run of one process that is resumed after an epoch ends with the weights
    of one that was never interrupted; in mid-epoch the rest of the epoch is drawn anew.

    Attributes:
        best_model_path: of the file, once there is one; what Lightning asks a checkpoint callback for.

    Args:
        same_run: a run is resumed in its own folder, whose path may differ now (moved, or seen from another working
            directory): the paths that other checkpoint callbacks remember follow it.
    """

    def __init__(self, same_run: bool = False) -> None:
        self.same_run = same_run
        self.path: Path | None = None
        self.best_model_path = ""
        self._random_state: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the run's folder."""
        if stage == "fit":
            self.path = trainer.strategy.broadcast(run_folder(trainer) if trainer.is_global_zero else None)
            self.path = self.path / "checkpoints" / "last.ckpt"  # type: ignore[operator]  # of process 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; of all callbacks this one comes last, so that the states of the others are up to date."""
        self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save when SIGTERM ends a training between two batches.

        Any other exception may come in the middle of a step, or from weights that are NaN; within a validation the
        scores would be those of its second half. Then the state after the last epoch is the newest that is whole.
        """
        if isinstance(exception, SIGTERMException) and trainer.training:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if self.path is not None and not is_trial(trainer) and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path, weights_only=False)
            self.best_model_path = str(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Save the random state."""
        return {"random_state": _random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the random state until training begins."""
        self._random_state = state_dict["random_state"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the random state, before the loaders draw the order of the images from it."""
        # a checkpoint holds the state of process 0: given to all, they would draw the same noise
        if self._random_state is not None and trainer.world_size == 1:
            _set_random_state(self._random_state)
        self._random_state = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the paths that checkpoint callbacks remember follow the folder of the run."""
        if not self.same_run:
            return
        states = checkpoint["callbacks"]
        for callback in trainer.checkpoint_callbacks:
            new, key = getattr(callback, "dirpath", None), callback.state_key
            old = states.get(key, {}).get("dirpath")
            if old and new:
                states[key] = _moved(states[key], str(old), str(new))


def keep_newest_state(trainer: pl.Trainer, same_run: bool = False) -> None:
    """Make every training of a trainer resumable.

    Args:
        trainer: gets a `LastCheckpoint`, in place of a ``ModelCheckpoint`` without arguments, unless it has one or
            checkpoints are switched off, and a `RunRecord`.
        same_run: see `LastCheckpoint`.
    """
    with suppress(NotImplementedError):  # some strategies have a way of their own
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a user's own stays
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
    callbacks = callbacks_of(trainer)
    own = [callback for callback in callbacks if isinstance(callback, LastCheckpoint)]
    if not own and trainer.checkpoint_callbacks:
        own = [LastCheckpoint()]
        # Lightning's default would keep the same state once more
        callbacks[:] = [callback for callback in callbacks if not _is_default(callback)]
        callbacks += own  # after the others, whose states it takes along
    for last in own:
        last.same_run = same_run
    callbacks.append(RunRecord())


def _is_default(callback: pl.Callback) -> bool:
    """Whether this is ``ModelCheckpoint()``, which Lightning adds where there is none."""
    if type(callback) is not ModelCheckpoint:
        return False
    names = ("dirpath", "filename", "monitor", "save_last", "save_top_k", "save_weights_only", "state_key")
    default = ModelCheckpoint()
    return all(getattr(callback, name) == getattr(default, name) for name in names)


def _moved(value: Any, old: str, new: str) -> Any:
    """Replace the beginning of all paths below ``old``, keys of dicts too."""
    if isinstance(value, dict):
        return {_moved(key, old, new): _moved(own, old, new) for key, own in value.items()}
    if isinstance(value, str) and (value == old or value.startswith(old + os.sep)):
        return new + value[len(old) :]
    return value


def _random_state() -> dict[str, Any]:
    """The states of all generators as plain values and tensors, which a checkpoint may hold."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
