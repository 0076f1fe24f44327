"""Feature statistics a callback gathers from a validation's forward passes, or from other images if these are few."""

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import FEW_IMAGES, IBA, Attributor, Counting, MultiLayerIBA
from lightning_chex.callbacks.shown import ShownImages
from lightning_chex.data.adapter import data_of
from lightning_chex.explaining import LINE_UP, observe, training_batches


class Observation:
    """Fits an attributor, and statistics of other layers that ``evaluate`` compares methods at, while batches pass.

    Args:
        attributor: fitted in place.
    """

    def __init__(self, attributor: Attributor) -> None:
        self.attributor = attributor
        self._line_up: list[IBA] = []
        self._learning = ExitStack()
        self._counting = Counting()

    def add_line_up(self, network: nn.Module) -> None:
        """From now on, fit the layers of `MultiLayerIBA`'s defaults too, less those the attributor itself looks at.

        With them a checkpoint is enough to compare all methods where there are test images alone. A network without
        these layers has none, and costs nothing.
        """
        known = {member.layer for member in self.attributor.members if member.statistics.per == "neuron"}
        layers = MultiLayerIBA().layers
        if not self._line_up and dict(network.named_modules()).keys() >= set(layers):
            self._line_up = [IBA(layer) for layer in layers if layer not in known]

    def begin(self, network: nn.Module) -> None:
        """Learn from the network's forward passes within `begin_batch` and `end_batch`, until `end`."""
        self._counting.rows = False
        with self._counting.governing():
            for learner in self._learners():
                self._learning.enter_context(learner.observing(network))

    def begin_batch(self, rows: Tensor) -> None:
        """Learn from these rows of the batch only, bool (B,)."""
        self._counting.rows = rows

    def end_batch(self) -> None:
        """The batch is over: forward passes between batches are not learnt from."""
        self._counting.rows = False

    def end(self) -> None:
        """Take over the new statistics, merged over all processes."""
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
        # in float32: 14 MB for a DenseNet-121 at 224 px, half of what they take while they grow
        line_up = {
            f"{one.layer}/{key}": value.float() if value.is_floating_point() else value
            for one in self._line_up
            if one.num_observed
            for key, value in one.state_dict().items()
        }
        return {**self.attributor.state_dict(), **({LINE_UP: line_up} if line_up else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds, also one from before there were statistics of other layers."""
        own = dict(state)
        line_up = own.pop(LINE_UP, {})
        self.attributor.load_state_dict(own)
        for one in self._line_up:
            kept = {key.rpartition("/")[2]: v for key, v in line_up.items() if key.rpartition("/")[0] == one.layer}
            if kept:
                one.load_state_dict(kept)

    def _learners(self) -> list[Attributor]:
        return [self.attributor, *self._line_up]

    def _synchronize(self) -> None:
        for learner in self._learners():
            learner.synchronize()
