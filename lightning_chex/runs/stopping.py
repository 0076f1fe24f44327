"""Callbacks that end a training: its weights are not finite any more, its time is up, or a signal asks for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_chex.lightning_private import received_signal, stop_after_batch


# Lightning's EarlyStopping(check_finite=True) checks the monitored metric only, not the weights, and ends the training
# without an error; a checkpoint that is saved before its check can already hold NaN (read from its source, 2.6.6).
class FiniteWeights(pl.Callback):
    """End a training that has diverged, before its weights are explained, measured or saved.

    Once a weight is NaN or infinite every later step is lost. Weights are looked at every so many training steps,
    before a validation, at the end of an epoch, and before a checkpoint is written: what is on disk can be used. The
    loss is watched too, without waiting for the device, to say when it began. ``fit`` has this callback by itself.

    Args:
        every_n_steps: training batches between two looks, at least 1.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1")
        self.every_n_steps = every_n_steps
        self._since: Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the first step whose loss is not finite."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            never = torch.full((), -1, device=loss.device)
            since = never if self._since is None else self._since
            begins = (since < 0) & ~loss.detach().isfinite().all()
            self._since = torch.where(begins, trainer.global_step, since)
        if (batch_idx + 1) % self.every_n_steps == 0:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the weights."""
        self._look(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the weights of a training before they are measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._look(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look at the weights before they take the place of better ones."""
        self._look(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        odd = _not_finite(pl_module)
        if not odd:
            self._since = None  # mixed precision skips a single such step
            return
        since = -1 if self._since is None else int(self._since)
        began = f"the loss of step {since} was NaN or infinite, and now" if since >= 0 else "now"
        kept = _newest(trainer)
        raise MisconfigurationException(
            f"the training has diverged: {began}, at step {trainer.global_step} (epoch {trainer.current_epoch}), "
            f"{len(odd)} of the weights are, {odd[0]} for one. They are not saved; "
            + (f"the last whole checkpoint is {kept}. " if kept else "no checkpoint was written before. ")
            + "Ways out: a lower model.lr, trainer.gradient_clip_val, trainer.precision 32-true, or a look at images "
            "and labels (inspect)" + ("; go on from the checkpoint by --ckpt_path" if kept else "")
        )


class TimeLimit(Timer):
    """End the training when its time is up, and begin no epoch after that.

    Lightning's own ``max_time`` looks at the clock after training batches only: when the time runs out during a
    validation, it trains one more batch and validates all over again.

    Args:
        duration: days:hours:minutes:seconds, as in ``00:00:03:30``.
    """

    def __init__(self, duration: str) -> None:
        super().__init__(duration)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the clock here too."""
        remaining = self.time_remaining()
        if not trainer.sanity_checking and remaining is not None and remaining <= 0:
            trainer.should_stop = True


class StopOnSignal(pl.Callback):
    """Stop a training at the end of a batch, on all processes at the same one, after SIGUSR1, SIGUSR2 or SIGTERM.

    A signal that reaches one process stops them all. With accumulated gradients the training stops after an optimizer
    step: gradients are not part of a checkpoint. `LastCheckpoint` saves the state. ``fit`` has this callback by itself.

    Attributes:
        signal: number of the signal that has stopped the training, 0 for none; the same on all processes.
    """

    def __init__(self) -> None:
        self.signal = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look for a signal."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._look(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look for a signal, within a training."""
        if trainer.state.fn == "fit":
            self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for a signal."""
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        number = received_signal(trainer)
        if trainer.world_size > 1:
            numbers = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(numbers, reduce_op="max"))
        if number and not self.signal:
            self.signal = number
            stop_after_batch(trainer)


def _not_finite(module: pl.LightningModule) -> list[str]:
    """Names of the parameters, and of what normalisation layers have collected, that hold NaN or infinity."""
    tensors = [(name, value.detach()) for name, value in module.named_parameters()]
    tensors += [(name, value) for name, value in module.named_buffers() if name.endswith(("_mean", "_var"))]
    floating = [(name, value) for name, value in tensors if value.is_floating_point()]
    if not floating:
        return []
    fine = torch.stack([value.isfinite().all().to(module.device) for _, value in floating]).tolist()
    return [name for (name, _), is_fine in zip(floating, fine, strict=True) if not is_fine]


def _newest(trainer: pl.Trainer) -> str | None:
    """The checkpoint this run has written last; the callbacks name the next one before it is there."""
    folders = {getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks}
    written = [path for folder in folders if folder for path in Path(folder).glob("*.ckpt")]
    return str(max(written, key=lambda path: path.stat().st_mtime_ns)) if written else None
