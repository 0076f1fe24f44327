"""Feature statistics from a validation's forward passes, or from other images if these are few."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import islice
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
    LayerLearner,
    MultiLayerIBA,
    ObservedRows,
    layer_learners,
)
from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import Stage
from lightning_chex.explanations.selection import ImageSelection
from lightning_chex.maps import LINE_UP, OTHERS, observe, training_batches


class StatisticsCollector:
    """Fits attributors during forward passes, and statistics of other layers at which ``evaluate`` compares methods.

    Methods of the same layer share its statistics.

    Args:
        attributors: by name; fitted in place.

    Attributes:
        counting: selects the images of a batch that statistics are taken from, and counts the seconds that takes.
    """

    def __init__(self, attributors: Mapping[str, Attributor]) -> None:
        self.attributors = attributors
        self._default_layers: list[IBA] = []
        self._hooks = ExitStack()
        self.counting = ObservedRows()

    def add_default_layers(self, network: nn.Module) -> None:
        """Also fit the default layers of `MultiLayerIBA`, except those that the attributors fit already.

        With them a checkpoint suffices to compare all methods on test images alone. Nothing is added if the network
        lacks one of these layers.
        """
        layers = MultiLayerIBA().layers
        if self._default_layers or not set(layers) <= dict(network.named_modules()).keys():
            return
        fitted = {member.layer for member in self._members() if member.statistics.per == "neuron"}
        self._default_layers = [IBA(layer) for layer in layers if layer not in fitted]

    def start_validation(self, network: nn.Module) -> None:
        """Learn from the network's forward passes between `start_batch` and `end_batch`, until `end_validation`."""
        self.counting.rows = False
        with self.counting.active():
            for learner in self._learners():
                self._hooks.enter_context(learner.observing(network))

    def start_batch(self, rows: Tensor) -> None:
        """Learn from these rows of the batch only, bool (B,)."""
        self.counting.rows = rows

    def end_batch(self) -> None:
        """Stop learning: other forward passes, as of other callbacks, do not count."""
        self.counting.rows = False

    def end_validation(self) -> None:
        """Remove the hooks, and merge the new statistics over all processes."""
        self._hooks.close()
        self._synchronize()

    def abort(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Remove the hooks and drop the statistics of this validation."""
        self._hooks.__exit__(kind, error, trace)

    def collect_more(self, trainer: pl.Trainer, network: nn.Module, device: Any, images: ImageSelection) -> None:
        """Learn from training images, or as a last resort from explained ones, where too few other images were seen.

        Every process must call this.
        """
        seen = self.num_observed
        if seen is None or seen >= FEW_IMAGES:
            return
        training = training_batches(data_of(trainer), limit=2 * FEW_IMAGES)
        batches: Iterable[Tensor]
        if training is not None:
            # every world_size-th batch, so that each is learnt from once over all processes
            batches = islice(training(), trainer.global_rank, None, trainer.world_size)
        elif seen < 2:
            rank_zero_warn(
                f"all but {seen} of the validation images are explained, and there are no training images to take "
                "feature statistics from: they are taken from the images explained. Reduce num_images to use others"
            )
            batches = (batch["image"] for batch in images.batches(trainer, "validate"))
        else:
            return
        convert = trainer.precision_plugin.convert_input
        with trainer.precision_plugin.forward_context():
            observe(network, self._learners(), (convert(batch.to(device)) for batch in batches))
        self._synchronize()

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics as plain tensors; those that methods share occur once."""
        first, *further = self.attributors
        state: dict[str, Any] = dict(self.attributors[first].state_dict())
        default_layers = self._default_layers_state()
        if default_layers:
            state[LINE_UP] = default_layers
        saved = {id(member.statistics) for member in layer_learners(self.attributors[first])}
        further_states = {}
        for name in further:
            attributor = self.attributors[name]
            statistics = {id(member.statistics) for member in layer_learners(attributor)}
            is_shared = bool(statistics) and statistics <= saved
            if attributor.num_observed and not is_shared:
                further_states[name] = attributor.state_dict()
                saved |= statistics
        if further_states:
            state[OTHERS] = further_states
        return state

    def _default_layers_state(self) -> dict[str, Any]:
        """Statistics of the default layers, by ``LAYER/KEY``."""
        state = {}
        for iba in self._default_layers:
            if not iba.num_observed:
                continue
            for key, value in iba.state_dict().items():
                # in float32: 14 MB for a DenseNet-121 at 224 px, half of what they take while they are updated
                state[f"{iba.layer}/{key}"] = value.float() if value.is_floating_point() else value
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the statistics of a checkpoint; those of older versions have none of other layers."""
        first_state = dict(state)
        default_layers = first_state.pop(LINE_UP, {})
        further_states = first_state.pop(OTHERS, {})
        states = {next(iter(self.attributors)): first_state, **further_states}
        for name, attributor in self.attributors.items():
            if states.get(name):
                attributor.load_state_dict(states[name])
        self._share()
        for iba in self._default_layers:
            layer_state = {}
            for path, value in default_layers.items():
                layer, _, key = path.rpartition("/")
                if layer == iba.layer:
                    layer_state[key] = value
            if layer_state:
                iba.load_state_dict(layer_state)

    @property
    def num_observed(self) -> int | None:
        """Smallest number of images that a method has learnt from; None if none has anything to learn."""
        counts = [attributor.num_observed for attributor in self.attributors.values()]
        return min((count for count in counts if count is not None), default=None)

    def has_enough_images(self, stage: Stage) -> bool:
        """Whether the statistics rest on enough images to explain; warns if they rest on few."""
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
        learners: list[Attributor] = []
        covered: set[tuple[str, str]] = set()
        for attributor in self.attributors.values():
            statistics = {(member.layer, member.statistics.per) for member in layer_learners(attributor)}
            if not statistics or not statistics <= covered:
                learners.append(attributor)
            covered |= statistics
        return [*learners, *self._default_layers]

    def _members(self) -> list[LayerLearner]:
        """Learners of single layers of all attributors."""
        return [member for attributor in self.attributors.values() for member in layer_learners(attributor)]

    def _synchronize(self) -> None:
        """Merge over the processes, then share among the methods."""
        for learner in self._learners():
            learner.synchronize()
        self._share()

    def _share(self) -> None:
        """Give the statistics of a layer to all methods that use it."""
        members = self._members()
        first: dict[tuple[str, str], FeatureStatistics] = {}
        # non-empty statistics come first, so that they replace empty ones and not the reverse
        for member in sorted(members, key=lambda member: member.statistics.count == 0):
            first.setdefault((member.layer, member.statistics.per), member.statistics)
        for member in members:
            member.statistics = first[member.layer, member.statistics.per]
