"""What a callback learns of the features while a validation runs, and where else from if that is too little."""

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import FEW_IMAGES, Attributor, Counting
from lightning_chex.callbacks.shown import ShownImages
from lightning_chex.data.adapter import data_of
from lightning_chex.explaining.feature_statistics import observe, training_batches
from lightning_chex.explaining.line_up_statistics import LINE_UP, LineUpStatistics


class Observation:
    """Feature statistics of an attributor, and of the line-up's other layers beside it.

    Args:
        attributor: learns in place.
    """

    def __init__(self, attributor: Attributor) -> None:
        self.attributor = attributor
        self.line_up: LineUpStatistics | None = None
        self._learning = ExitStack()
        self._counting = Counting()

    def add_line_up(self, network: nn.Module) -> None:
        """From now on, learn of the line-up's layers too."""
        if self.line_up is None:
            self.line_up = LineUpStatistics(network, self.attributor)

    def begin(self, network: nn.Module) -> None:
        """Learn from the network's forward passes on batches that are begun, until `end`."""
        self._counting.rows = False
        with self._counting.governing():
            for learner in self._learners():
                self._learning.enter_context(learner.observing(network))

    def begin_batch(self, rows: Tensor) -> None:
        """Learn from these rows of the batch only, bool (B,)."""
        self._counting.rows = rows

    def end_batch(self) -> None:
        """The batch is over: what others run through the network between batches teaches nothing."""
        self._counting.rows = False

    def end(self) -> None:
        """What was learnt takes effect, that of all processes together."""
        self._learning.close()
        self._synchronize()

    def abort(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Take the hooks off; what was learnt is dropped."""
        self._learning.__exit__(kind, error, trace)

    def learn_more(self, trainer: pl.Trainer, network: nn.Module, device: Any, images: ShownImages) -> None:
        """Where few images were not explained: learn from training images instead, or at last from those explained.

        Every process must call this.
        """
        seen = self.attributor.num_observed
        if seen is None or seen >= FEW_IMAGES:
            return
        offer = training_batches(data_of(trainer), limit=2 * FEW_IMAGES)
        if offer is not None:
            own = (batch for i, batch in enumerate(offer()) if i % trainer.world_size == trainer.global_rank)
        elif seen < 2:
            rank_zero_warn(
                f"all but {seen} of the validation images are explained, and there are no training images to take "
                "feature statistics from: they are taken from the images explained. A smaller num_images leaves others"
            )
            own = (batch["image"] for batch in images.batches(trainer, "validate"))
        else:
            return
        convert = trainer.precision_plugin.convert_input
        with trainer.precision_plugin.forward_context():
            observe(network, self._learners(), (convert(batch.to(device)) for batch in own))
        self._synchronize()

    def state_dict(self) -> dict[str, Any]:
        """What was learnt, as plain tensors."""
        line_up = {} if self.line_up is None else self.line_up.state_dict()
        return {**self.attributor.state_dict(), **({LINE_UP: line_up} if line_up else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds, also one from before there were statistics of other layers."""
        own = dict(state)
        line_up = own.pop(LINE_UP, {})
        self.attributor.load_state_dict(own)
        if self.line_up is not None:
            self.line_up.load_state_dict(line_up)

    def _learners(self) -> list[Attributor | LineUpStatistics]:
        return [self.attributor, *([] if self.line_up is None else [self.line_up])]

    def _synchronize(self) -> None:
        for learner in self._learners():
            learner.synchronize()
