"""Alarms: a logged figure that passes a limit is told to the loggers at once, and again at the end of the run."""

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
    """A figure that has passed its limit.

    Attributes:
        figure: its logged key.
        limit: as it was given, ``> 0.2``.
        first: epoch in which it passed the limit for the first time.
        epochs: in how many it did.
        worst: the value farthest beyond.
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
    """Limit of a logged figure, above or below which an alarm is raised.

    Example:
        >>> Limit.read("> 0.2").passed(0.3)
        True
    """

    above: bool
    value: float

    @classmethod
    def read(cls, text: str) -> "Limit":
        """Read ``> NUMBER`` or ``< NUMBER``; a ValueError says what is wrong."""
        sign = text.strip()[:1]
        number = text.strip()[1:]
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if sign not in (">", "<") or not math.isfinite(value):
            raise ValueError(f"the limit {text!r} is none: give '> NUMBER' or '< NUMBER'")
        return cls(sign == ">", float(torch.tensor(value)))  # in float32, as figures are logged

    def passed(self, value: float) -> bool:
        """Whether a value is beyond it; NaN is not."""
        return value > self.value if self.above else value < self.value

    def worse(self, one: float, other: float) -> float:
        """The one farther beyond."""
        return max(one, other) if self.above else min(one, other)


class Alarms(pl.Callback):
    """Watch logged figures; one that passes its limit at a validation is an alarm.

    It is told as a warning and as an alert of W&B, where that is a logger, when it happens first, and in the summary at
    the end. Alarms travel with the checkpoint.

    Args:
        limits: by logged key, such as ``val/iba_corners/Effusion``, in which ``*`` stands for any characters:
            ``> 0.3`` or ``< 0.6``.

    Raises:
        ValueError: no limit, or one that cannot be read.
    """

    def __init__(self, limits: dict[str, str | float]) -> None:
        super().__init__()
        if not limits:
            raise ValueError("limits is empty: name a logged figure and its limit, {val/auroc: '< 0.6'}")
        self._texts = {figure: str(limit) for figure, limit in limits.items()}
        self.limits = {figure: Limit.read(limit) for figure, limit in self._texts.items()}
        self.alarms: dict[tuple[str, str], Alarm] = {}
        """By figure and limit."""
        self._known: set[str] = set()
        self._before: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare all figures with their limits."""
        if trainer.sanity_checking:
            return
        logged = dict(trainer.callback_metrics)
        # what is not logged at each validation keeps its old value there: the same tensor, not an equal one
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
        """The alarms so far."""
        return {"alarms": [asdict(alarm) for alarm in self.alarms.values()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
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
        """Say once which limits watch nothing; a figure that is logged now and then is known from then on."""
        watched = {name for _, name, _ in self._watched(figures)}
        for name in self.limits.keys() - watched - self._known:
            near = difflib.get_close_matches(name, figures, n=3) or sorted(figures)[:8]
            rank_zero_warn(
                f"alarms: nothing is logged as {name!r} at the first validation, which is right if it comes "
                f"later (every_n_epochs). Near are {', '.join(near)}"
            )
        self._known |= self.limits.keys()
