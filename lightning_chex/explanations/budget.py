"""Time a callback takes: its seconds, their share of the wall time, and a budget for them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.attribution import ObservedRows

T = TypeVar("T")


class CostMeter:
    """Seconds spent in `timed` hooks since the last report, and the time budget of a validation.

    Args:
        observing: counts the seconds of forward hooks, which run while the network does.
        budget: seconds; None for no limit.
    """

    def __init__(self, observing: ObservedRows, budget: float | None = None) -> None:
        self._observing = observing
        self.budget = budget
        self._warned = False
        self._hook_started: float | None = None
        self.restart()

    def restart(self) -> None:
        """Reset the seconds and the wall time, as at the start of a training or of a separate validation."""
        self._report_started = time.perf_counter()
        self._reset_seconds()

    def start_hook(self) -> None:
        """Start to count the seconds of a hook."""
        self._hook_started = time.perf_counter()

    def stop_hook(self) -> None:
        """Add the seconds of the hook that ends."""
        if self._hook_started is not None:
            self._seconds += time.perf_counter() - self._hook_started
            self._hook_started = None

    def within_budget(self, trainer: pl.Trainer, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches until the current hook has used the budget; see `until_budget_spent`."""
        budget = self.budget
        if budget is None:
            return iter(batches)
        start = self._hook_started
        if start is None:
            start = time.perf_counter()
        return until_budget_spent(trainer, batches, lambda: time.perf_counter() - start >= budget)

    def log_explained_count(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        name: str,
        explained: Mapping[int, str],
        planned: Mapping[int, str],
    ) -> Mapping[int, str]:
        """Log how many images were explained within the budget, and warn once if not all of them were.

        Args:
            trainer: of the run.
            pl_module: of the run.
            name: in the logged key.
            explained: image hashes by position.
            planned: the same for all selected images; empty hashes where an image has not been read yet.

        Returns:
            Image hashes of all selected images where they are known, else of those explained.
        """
        pl_module.log(f"val/{name}_images", float(len(explained)), sync_dist=trainer.world_size > 1)
        if len(explained) < len(planned) and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"time_budget={self.budget:g} seconds: {len(explained)} of the {len(planned)} images chosen were "
                "explained, and all logged figures are of these only; later validations that reach the budget do not "
                "warn again"
            )
        return planned if all(planned.values()) else explained

    def log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        """Log the report of a validation.

        Of several processes the largest figures are logged, because the other processes wait for the slowest.
        """
        for key, value in self.report().items():
            pl_module.log(f"val/{name}_{key}", value, sync_dist=trainer.world_size > 1, reduce_fx="max")

    def report(self) -> dict[str, float]:
        """Return the cost since the last report, and start the next one.

        Within a hook, the seconds up to now belong to this report, and the rest of the hook to the next.

        Returns:
            ``seconds``, and ``time_share``, their share of the wall time (0 to 1).
        """
        now = time.perf_counter()
        seconds = self._seconds + self._observing.seconds
        if self._hook_started is not None:
            seconds += now - self._hook_started
            self._hook_started = now
        wall_time = now - self._report_started
        share = 0.0
        if wall_time > 0:
            share = min(1.0, seconds / wall_time)
        self._report_started = now
        self._reset_seconds()
        return {"seconds": seconds, "time_share": share}

    def _reset_seconds(self) -> None:
        self._seconds = 0.0
        self._observing.seconds = 0.0


def timed(hook: Callable[..., T]) -> Callable[..., T]:
    """Count the seconds of a callback's hook; the callback has an attribute ``cost``, a `CostMeter`."""

    @wraps(hook)
    def run(callback: Any, *args: Any, **kwargs: Any) -> T:
        callback.cost.start_hook()
        try:
            return hook(callback, *args, **kwargs)
        finally:
            callback.cost.stop_hook()

    return run


def until_budget_spent(trainer: pl.Trainer, batches: Iterable[T], is_spent: Callable[[], bool]) -> Iterator[T]:
    """Yield batches until a budget is spent, the same number of steps in all processes of a distributed run.

    After each batch the processes agree: when the budget of one is spent, all stop. A process that has run out of
    batches keeps taking part in the decisions, because these are collective calls and the others would wait for it.

    Args:
        trainer: of the run; every process must call this.
        batches: those of this process; processes may have different numbers of them.
        is_spent: tells whether the budget is spent; called after each batch.
    """
    decide = trainer.strategy.reduce_boolean_decision
    remaining = iter(batches)
    while True:
        batch = next(remaining, None)
        if batch is not None:
            yield batch
        if not decide(batch is not None, all=False) or decide(is_spent(), all=False):
            return
