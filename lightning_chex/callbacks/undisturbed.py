"""A run with one callback, in which no other one takes part."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar


@contextmanager
def undisturbed(trainer: pl.Trainer, callback: pl.Callback) -> Iterator[None]:
    """Within the context the trainer has this callback and its progress bar, and no logger; then its own again.

    A logger would begin a run, and callbacks of the training would write their files or refuse what does not concern
    them.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    loggers = trainer.loggers
    trainer.callbacks = [  # type: ignore[attr-defined]
        *(own for own in callbacks if isinstance(own, ProgressBar)),
        callback,
    ]
    trainer.loggers = []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")  # they are left out
            yield
    finally:
        trainer.callbacks = callbacks  # type: ignore[attr-defined]
        trainer.loggers = loggers
