"""Communication between the processes of a distributed run."""

from collections.abc import Callable
from itertools import chain
from typing import TypeVar

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.report import Explanation

T = TypeVar("T")


def on_process_0(trainer: pl.Trainer, work: Callable[[], T]) -> T:
    """Run ``work`` in process 0 only, and return its result, or raise its error, in all processes."""
    result: T | None = None
    error: MisconfigurationException | None = None
    if trainer.is_global_zero:
        try:
            result = work()
        except MisconfigurationException as caught:
            error = caught
    result, error = trainer.strategy.broadcast((result, error))
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # of process 0


def gathered(own: list[Explanation]) -> list[Explanation]:
    """The explanations of all processes, in the order one process would give them."""
    return sorted(gathered_rows(own), key=lambda explanation: explanation.place)


def gathered_rows(own: list[T]) -> list[T]:
    """Gather the rows of all processes, in the order of the processes; every process must call this."""
    parts = [own]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        parts = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(parts, own)
    return list(chain.from_iterable(parts))
