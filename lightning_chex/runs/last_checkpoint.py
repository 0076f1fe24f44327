"""The newest whole state of a training, always on disk."""

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_chex.files import write_whole
from lightning_chex.lightning_private import (
    callbacks_of,
    change_train_loaders,
    is_trial,
    position_in_epoch,
    repeat_validation,
    replace_requeue,
    set_batch_sampler,
    train_loaders,
)
from lightning_chex.runs.run_folder import RunRecord, run_folder
from lightning_chex.runs.stopping import StopOnSignal


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, also where the folder for temporary files is on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one; addresses of remote storage are left to the parent."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: torch.save(checkpoint, file), sync=True)


class ResumableBatches:
    """A batch sampler that can go on in the middle of the order it has drawn in an earlier process.

    Args:
        batches: the sampler of the loader.
        begun: the state of torch's generator when the order was drawn, None to draw a new one.
        position: number of batches of this order that are not given again.

    Attributes:
        begun: this state of the present pass over the data, for the checkpoint.
    """

    def __init__(self, batches: Any, begun: Tensor | None = None, position: int = 0) -> None:
        self.batches = batches
        self.sampler = getattr(batches, "sampler", None)  # where Lightning tells a distributed one the epoch
        self.begun = begun
        self._position = position

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        # samplers draw their order when the first batch is taken, in this process, also for a loader with workers
        if self._position == 0 or self.begun is None:
            self.begun = torch.get_rng_state()
            yield from self.batches
            return
        now = torch.get_rng_state()
        torch.set_rng_state(self.begun)
        rest = iter(self.batches)
        for _ in range(self._position):
            next(rest, None)
        self._position = 0
        torch.set_rng_state(now)
        yield from rest

    def start_epoch(self) -> None:
        """Draw a new order next: of a pass that was complete no further batch is taken, which would tell this."""
        self._position = 0


# Lightning 2.6.6 has ModelCheckpoint(save_last, save_on_exception) and OnExceptionCheckpoint. They do not replace this
# class: they save at any exception, also in the middle of a step; OnExceptionCheckpoint removes its file at the end;
# save_last only follows a checkpoint that was saved at the same step; and none of them saves before a validation, or
# keeps the random state and the order of the images (read from their sources, not run).
class LastCheckpoint(Checkpoint):
    """Keep the newest whole state in ``checkpoints/last.ckpt`` of the run's folder.

    Lightning's ``ModelCheckpoint(monitor=..., save_last=True)`` writes ``last.ckpt`` only when the best improved. This
    one writes before every validation, at the end of every epoch, and between two batches when a signal ends the
    training. It holds the random state of every process and the order of the images: a run that is resumed by the
    same number of processes ends with the weights of one that was never interrupted. In the middle of an epoch this
    holds for the order of the images in any case, for random augmentation only without worker processes, whose
    generators are started anew.

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
        self._fitting: pl.Trainer | None = None
        self._random_state: dict[str, Any] | None = None
        self._state_of_validation: dict[str, Any] | None = None
        self._orders: list[Tensor | None] = []
        self._position = 0
        self._epoch_is_saved = False
        self._validation_begins = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the run's folder."""
        self._fitting = trainer
        if stage == "fit":
            self.path = trainer.strategy.broadcast(run_folder(trainer) if trainer.is_global_zero else None)
            self.path = self.path / "checkpoints" / "last.ckpt"  # type: ignore[operator]  # of process 0
            change_train_loaders(trainer, self._make_resumable)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the state on disk is of an earlier epoch, and go on with no order of it."""
        self._epoch_is_saved = False
        for batches in self._resumable():
            batches.start_epoch()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save: a training that is interrupted while it validates goes on with the whole validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            if self._state_of_validation is not None:
                # once more: making an iterator of the loader has drawn from it
                _set_random_state(self._state_of_validation)
            self._state_of_validation = None
            self._validation_begins = True
            try:
                self._save(trainer)
            finally:
                self._validation_begins = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; of all callbacks this one comes last, so that the states of the others are up to date."""
        self._save(trainer)
        self._epoch_is_saved = True

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save when a signal ends a training between two batches.

        Any other exception may come in the middle of a step, or from weights that are NaN. Within a validation the
        newest whole state is that of its beginning.
        """
        if isinstance(exception, SIGTERMException) and trainer.training and not self._epoch_is_saved:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if self.path is not None and not is_trial(trainer) and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path, weights_only=False)
            self.best_model_path = str(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Save the random state of all processes, which all have to call this."""
        own = {
            "random_state": _random_state(),
            "orders": [batches.begun for batches in self._resumable()],
            "validation_begins": self._validation_begins,
        }
        if self._fitting is None or self._fitting.world_size == 1:
            return {"processes": [own]}
        states: list[Any] = [None] * self._fitting.world_size
        torch.distributed.all_gather_object(states, own)
        return {"processes": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the random state of this process until training begins."""
        if self._fitting is None or self._fitting.state.fn != "fit":
            return
        # checkpoints of earlier versions hold that of process 0 alone
        states = state_dict.get("processes") or [{"random_state": state_dict["random_state"], "orders": []}]
        if len(states) != self._fitting.world_size:
            rank_zero_info(
                f"the checkpoint holds the random state of {len(states)} processes, and this training has "
                f"{self._fitting.world_size}: random numbers and the order of the images are drawn anew"
            )
            return
        own = states[self._fitting.global_rank]
        self._random_state = own["random_state"]
        self._state_of_validation = own["random_state"] if own.get("validation_begins") else None
        self._orders = list(own["orders"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the random state, before the loaders draw the order of the images from it."""
        if self._random_state is not None:
            _set_random_state(self._random_state)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the random state again in mid-epoch: making an iterator of the loader has drawn from it."""
        if self._random_state is not None and self._position:
            _set_random_state(self._random_state)
        self._random_state = None
        self._orders = []

    def _resumable(self) -> list[ResumableBatches]:
        loaders = [] if self._fitting is None else train_loaders(self._fitting)
        samplers = [getattr(loader, "batch_sampler", None) for loader in loaders]
        return [own for own in samplers if isinstance(own, ResumableBatches)]

    def _make_resumable(self, loader: DataLoader) -> None:
        if loader.batch_sampler is None:
            return
        begun = self._orders.pop(0) if self._orders else None
        set_batch_sampler(loader, ResumableBatches(loader.batch_sampler, begun, self._position))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have the validation repeated that is about to begin."""
        if self._validation_begins:
            repeat_validation(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the position in the epoch, and let the paths that checkpoint callbacks remember follow the folder."""
        self._position = position_in_epoch(checkpoint)
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
            checkpoints are switched off, a `StopOnSignal` and a `RunRecord`; Lightning's requeue is switched off.
        same_run: see `LastCheckpoint`.
    """
    replace_requeue(trainer)
    with suppress(NotImplementedError):  # some strategies have a way of their own
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a user's own stays
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
    callbacks = callbacks_of(trainer)
    callbacks.insert(0, StopOnSignal())
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
    """The states of all generators of this process as plain values and tensors, which a checkpoint may hold."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        # of its own device alone: a process has no business on those of the others
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
        "numpy": (torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        # earlier versions kept the states of all devices
        device = torch.cuda.current_device() if len(state["cuda"]) > 1 else 0
        if device < len(state["cuda"]):
            torch.cuda.set_rng_state(state["cuda"][device])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
