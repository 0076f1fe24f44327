"""Cost of a callback: its seconds, their share of the wall time, and a budget for them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.attribution import ObservedRows

T = TypeVar("T")


class Cost:
    """Seconds spent within hooks that are `counted`, since the last report, and the budget of a validation.

    Args:
        observing: what counts the seconds of forward hooks, which run while the network does.
        budget: seconds; None for no limit.
    """

    def __init__(self, observing: ObservedRows, budget: float | None = None) -> None:
        self._observing = observing
        self.budget = budget
        self._said = False
        self._seconds = 0.0
        self._entered: float | None = None
        self.begin()

    def begin(self) -> None:
        """Begin anew, as a training or a validation of its own does."""
        self._since = time.perf_counter()
        self._seconds = self._observing.seconds = 0.0

    def enter(self) -> None:
        """A hook begins."""
        self._entered = time.perf_counter()

    def leave(self) -> None:
        """A hook ends."""
        if self._entered is not None:
            self._seconds += time.perf_counter() - self._entered
            self._entered = None

    def within_budget(self, trainer: pl.Trainer, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches until the hook that runs now has taken what the budget allows; see `until_spent`."""
        start, budget = time.perf_counter() if self._entered is None else self._entered, self.budget
        if budget is None:
            return iter(batches)
        return until_spent(trainer, batches, lambda: time.perf_counter() - start >= budget)

    def account(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        name: str,
        explained: Mapping[int, str],
        planned: Mapping[int, str],
    ) -> Mapping[int, str]:
        """Log how many images were explained within the budget, and say once if that is not all of them.

        Args:
            trainer: of the run.
            pl_module: of the run.
            name: in the logged key.
            explained: marks by place.
            planned: the same of all images; empty marks where these are not known before an image is explained.

        Returns:
            Marks of all images, as far as they are known.
        """
        pl_module.log(f"val/{name}_images", float(len(explained)), sync_dist=trainer.world_size > 1)
        if len(explained) < len(planned) and not self._said:
            self._said = True
            rank_zero_warn(
                f"time_budget={self.budget:g} seconds: {len(explained)} of the {len(planned)} images chosen were "
                "explained, and all that is logged is of these, here and wherever the time is up at a later validation"
            )
        return planned if all(planned.values()) else explained

    def log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        """Log the report of a validation: of several processes the largest figures, for which the others wait."""
        for key, value in self.report().items():
            pl_module.log(f"val/{name}_{key}", value, sync_dist=trainer.world_size > 1, reduce_fx="max")

    def report(self) -> dict[str, float]:
        """``seconds``, and the share of the wall time they are, ``time_share``; the next report begins here.

        Within a hook the seconds up to now count, and what it takes from now on counts for the next report.
        """
        now = time.perf_counter()
        seconds = self._seconds + self._observing.seconds
        if self._entered is not None:
            seconds += now - self._entered
            self._entered = now
        wall = now - self._since
        self._since, self._seconds, self._observing.seconds = now, 0.0, 0.0
        return {"seconds": seconds, "time_share": min(1.0, seconds / wall) if wall > 0 else 0.0}


def counted(hook: Callable[..., T]) -> Callable[..., T]:
    """Count the seconds of a callback's hook; the callback has a ``cost``, see `Cost`."""

    @wraps(hook)
    def run(callback: Any, *arguments: Any, **named: Any) -> T:
        callback.cost.enter()
        try:
            return hook(callback, *arguments, **named)
        finally:
            callback.cost.leave()

    return run


def until_spent(trainer: pl.Trainer, batches: Iterable[T], spent: Callable[[], bool]) -> Iterator[T]:
    """Yield batches until a budget is spent, in all processes of a distributed run equally many.

    After each batch the processes agree: when the budget of one is spent, all end. A process without batches of its
    own goes on agreeing, so that no other waits for it.

    Args:
        trainer: of the run; every process must call this.
        batches: this process's own, as many as there are.
        spent: whether the budget is; asked when a batch has been worked on.
    """
    decide, own = trainer.strategy.reduce_boolean_decision, iter(batches)
    while True:
        batch = next(own, None)
        if batch is not None:
            yield batch
        if not decide(batch is not None, all=False) or decide(spent(), all=False):
            return
