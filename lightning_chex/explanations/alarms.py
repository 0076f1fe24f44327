"""Alarms on logged metrics: a metric beyond its limit is reported at once, and again at the end of the run."""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor


@dataclass
class Alarm:
    """A metric beyond its limit.

    Attributes:
        figure: its logged key.
        limit: the limit as configured, such as ``> 0.2``.
        first: first epoch in which it was beyond the limit.
        epochs: number of validations in which it was.
        worst: the value farthest beyond the limit.
    """

    figure: str
    limit: str
    first: int
    epochs: int
    worst: float

    def __str__(self) -> str:
        times = "one validation" if self.epochs == 1 else f"{self.epochs} validations"
        return f"{self.figure} {self.worst:.3g} {self.limit} (in {times}, first in epoch {self.first})"


@dataclass(frozen=True)
class Limit:
    """Limit of a logged metric, above or below which an alarm is raised.

    Example:
        >>> Limit.read("> 0.2").passed(0.3)
        True
    """

    above: bool
    value: float

    @classmethod
    def read(cls, text: str) -> "Limit":
        """Read ``> NUMBER`` or ``< NUMBER``.

        Raises:
            ValueError: the text has another form.
        """
        sign = text.strip()[:1]
        number = text.strip()[1:]
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if sign not in (">", "<") or not math.isfinite(value):
            raise ValueError(f"the limit {text!r} cannot be read: give '> NUMBER' or '< NUMBER'")
        # rounded to float32, as metrics are logged: else .1 would be above a limit of .1
        return cls(sign == ">", float(torch.tensor(value)))

    def passed(self, value: float) -> bool:
        """Return whether a value is beyond the limit; NaN is not."""
        if self.above:
            return value > self.value
        return value < self.value

    def worse(self, first: float, second: float) -> float:
        """Return the value that is farther beyond the limit."""
        if self.above:
            return max(first, second)
        return min(first, second)


class Alarms(pl.Callback):
    """Raise an alarm when a logged metric is beyond its limit at a validation.

    The first time it is reported as a warning, and as an alert of W&B if that is a logger; the summary at the end of
    the run lists all alarms. Alarms are saved in the checkpoint.

    Args:
        limits: limits by logged key, ``> 0.3`` or ``< 0.6``. In a key such as ``val/iba_corners/*`` the ``*`` matches
            any characters.

    Raises:
        ValueError: there is no limit, or one that cannot be read.
    """

    def __init__(self, limits: dict[str, str | float]) -> None:
        super().__init__()
        if not limits:
            raise ValueError("limits is empty: name a logged figure and its limit, {val/auroc: '< 0.6'}")
        self._texts = {figure: str(limit) for figure, limit in limits.items()}
        self.limits = {figure: Limit.read(limit) for figure, limit in self._texts.items()}
        self.alarms: dict[tuple[str, str], Alarm] = {}
        """Alarms by logged key and limit."""
        self._known: set[str] = set()
        self._before: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare all metrics of this validation with their limits."""
        if trainer.sanity_checking:
            return
        logged = dict(trainer.callback_metrics)
        # a metric that is not logged at every validation keeps its old value there, which is then the same tensor
        figures = {key: float(value) for key, value in logged.items() if value is not self._before.get(key)}
        self._before = logged
        self._warn_of_unknown(figures)
        raised = set()
        for figure, name, limit in self._watched(figures):
            key = figure, self._texts[name]  # two patterns may match a figure
            if limit.passed(figures[figure]) and key not in raised:
                raised.add(key)
                self._raise(trainer, *key, figures[figure], limit)

    def state_dict(self) -> dict[str, Any]:
        """Return the alarms so far."""
        return {"alarms": [asdict(alarm) for alarm in self.alarms.values()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the alarms from a checkpoint."""
        self.alarms = {(own["figure"], own["limit"]): Alarm(**own) for own in state_dict["alarms"]}

    def _watched(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str, Limit]]:
        for name, limit in self.limits.items():
            for figure in figures:
                if fnmatchcase(figure, name):
                    yield figure, name, limit

    def _raise(self, trainer: pl.Trainer, figure: str, text: str, value: float, limit: Limit) -> None:
        known = self.alarms.get((figure, text))
        if known is not None:
            known.epochs = known.epochs + 1
            known.worst = limit.worse(known.worst, value)
            return
        alarm = self.alarms[figure, text] = Alarm(figure, text, trainer.current_epoch, 1, value)
        rank_zero_warn(f"alarm: {alarm}")
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, WandbLogger):
                logger.experiment.alert(title=figure, text=str(alarm))

    def _warn_of_unknown(self, figures: Mapping[str, float]) -> None:
        """Warn once about limits that match no logged metric; the metric may still be logged at a later validation."""
        watched = {name for _, name, _ in self._watched(figures)}
        for name in self.limits.keys() - watched - self._known:
            near = difflib.get_close_matches(name, figures, n=3) or sorted(figures)[:8]
            rank_zero_warn(
                f"alarms: nothing is logged as {name!r} at the first validation, which is right if it comes "
                f"later (every_n_epochs). Near are {', '.join(near)}"
            )
        self._known |= self.limits.keys()
