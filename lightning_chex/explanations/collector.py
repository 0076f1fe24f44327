"""Feature statistics a callback gathers from a validation's forward passes, or from other images if these are few."""

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import (
    FEW_IMAGES,
    IBA,
    Attributor,
    FeatureStatistics,
    MultiLayerIBA,
    ObservedRows,
    layer_learners,
)
from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import Stage
from lightning_chex.explanations.selection import ShownImages
from lightning_chex.maps import LINE_UP, OTHERS, observe, training_batches


class Observation:
    """Fits attributors, and statistics of other layers that ``evaluate`` compares methods at, while batches pass.

    Methods that look at the same layer share its statistics.

    Args:
        attributors: by name; fitted in place.

    Attributes:
        counting: which images of a batch are learnt from, and how long that took.
    """

    def __init__(self, attributors: Mapping[str, Attributor]) -> None:
        self.attributors = attributors
        self._line_up: list[IBA] = []
        self._learning = ExitStack()
        self.counting = ObservedRows()

    def add_default_layers(self, network: nn.Module) -> None:
        """From now on, fit the layers of `MultiLayerIBA`'s defaults too, less those the attributor itself looks at.

        With them a checkpoint is enough to compare all methods where there are test images alone. A network without
        these layers has none, and costs nothing.
        """
        members = (member for one in self.attributors.values() for member in layer_learners(one))
        known = {member.layer for member in members if member.statistics.per == "neuron"}
        layers = MultiLayerIBA().layers
        if not self._line_up and dict(network.named_modules()).keys() >= set(layers):
            self._line_up = [IBA(layer) for layer in layers if layer not in known]

    def begin(self, network: nn.Module) -> None:
        """Learn from the network's forward passes within `begin_batch` and `end_batch`, until `end`."""
        self.counting.rows = False
        with self.counting.active():
            for learner in self._learners():
                self._learning.enter_context(learner.observing(network))

    def begin_batch(self, rows: Tensor) -> None:
        """Learn from these rows of the batch only, bool (B,)."""
        self.counting.rows = rows

    def end_batch(self) -> None:
        """The batch is over: forward passes between batches are not learnt from."""
        self.counting.rows = False

    def end(self) -> None:
        """Take over the new statistics, merged over all processes."""
        self._learning.close()
        self._synchronize()

    def abort(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Take the hooks off; what was learnt is dropped."""
        self._learning.__exit__(kind, error, trace)

    def learn_more(self, trainer: pl.Trainer, network: nn.Module, device: Any, images: ShownImages) -> None:
        """Learn from training images, or as a last resort from explained ones, where too few other images were seen.

        Every process must call this.
        """
        seen = self.num_observed
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
        """Return what was learnt as plain tensors."""
        # in float32: 14 MB for a DenseNet-121 at 224 px, half of what they take while they grow
        line_up = {
            f"{one.layer}/{key}": value.float() if value.is_floating_point() else value
            for one in self._line_up
            if one.num_observed
            for key, value in one.state_dict().items()
        }
        first = next(iter(self.attributors.values()))
        kept, more = {id(member.statistics) for member in layer_learners(first)}, {}
        for name, own in list(self.attributors.items())[1:]:
            found = {id(member.statistics) for member in layer_learners(own)}
            if own.num_observed and not (found and found <= kept):  # what methods share is kept once
                more[name] = own.state_dict()
                kept |= found
        return {
            **first.state_dict(),
            **({LINE_UP: line_up} if line_up else {}),
            **({OTHERS: more} if more else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds, also one from before there were statistics of other layers."""
        own = dict(state)
        line_up, others = own.pop(LINE_UP, {}), own.pop(OTHERS, {})
        states = {next(iter(self.attributors)): own, **others}
        for name, attributor in self.attributors.items():
            if states.get(name):
                attributor.load_state_dict(states[name])
        self._share()
        for one in self._line_up:
            kept = {key.rpartition("/")[2]: v for key, v in line_up.items() if key.rpartition("/")[0] == one.layer}
            if kept:
                one.load_state_dict(kept)

    @property
    def num_observed(self) -> int | None:
        """Smallest number of images that a method has learnt from; None if none has anything to learn."""
        found = [one.num_observed for one in self.attributors.values()]
        return min((count for count in found if count is not None), default=None)

    def suffices(self, stage: Stage) -> bool:
        """Whether enough was learnt to explain; warn where there is none, or little."""
        seen = self.num_observed
        if seen is not None and seen < 2:
            rank_zero_warn(
                f"nothing was explained: the feature statistics rest on {seen} image(s), and need at least 2. "
                + ("Validate first, or give --ckpt_path a checkpoint that holds them" if stage == "test" else "")
            )
            return False
        if seen is not None and seen < FEW_IMAGES:
            rank_zero_warn(f"the feature statistics rest on {seen} images only; {FEW_IMAGES} or more are advised")
        return True

    def _learners(self) -> list[Attributor]:
        """Learners without duplicates: of methods that learn the same statistics of a layer, the first."""
        found: list[Attributor] = []
        known: set[tuple[str, str]] = set()
        for attributor in self.attributors.values():
            learnt = {(member.layer, member.statistics.per) for member in layer_learners(attributor)}
            if not learnt or not learnt <= known:
                found.append(attributor)
            known |= learnt
        return [*found, *self._line_up]

    def _synchronize(self) -> None:
        """Merge over the processes, then share among the methods."""
        for learner in self._learners():
            learner.synchronize()
        self._share()

    def _share(self) -> None:
        """Give what was learnt of a layer to all methods that look at it."""
        members = [member for one in self.attributors.values() for member in layer_learners(one)]
        first: dict[tuple[str, str], FeatureStatistics] = {}
        for member in sorted(members, key=lambda member: member.statistics.count == 0):
            first.setdefault((member.layer, member.statistics.per), member.statistics)
        for member in members:
            member.statistics = first[member.layer, member.statistics.per]
