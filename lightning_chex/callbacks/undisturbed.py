"""A run with one callback, in which no other one takes part."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar

from lightning_chex.lightning_private import CALLBACKS_LEFT_OUT, callbacks_of, set_callbacks


@contextmanager
def undisturbed(trainer: pl.Trainer, callback: pl.Callback) -> Iterator[None]:
    """Within the context the trainer has this callback and its progress bar, and no logger; then its own again.

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
