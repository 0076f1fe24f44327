"""Base of the methods that put a bottleneck at one or several layers."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from torch import nn
from typing_extensions import override

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics
from lightning_chex.attribution.fitted import FittedAttributor, Source


class LayerLearner(Protocol):
    """Protocol of a method that learns the feature statistics of one layer, such as an `IBA`.

    Attributes:
        layer: dotted name.
        statistics: those learned so far; their ``per`` names the granularity to learn.
    """

    layer: str
    statistics: FeatureStatistics

    @property
    def bfloat16(self) -> bool:
        """Whether the network runs in bfloat16."""

    @property
    def needs_true_score(self) -> bool:
        """See `Attributor.needs_true_score`."""

    def observing(self, model: nn.Module) -> AbstractContextManager[None]:
        """See `Attributor.observing`."""


class LayeredAttributor(FittedAttributor):
    """A method with a bottleneck at each of its layers; it learns their feature statistics."""

    unit = "bits per pixel"

    @property
    def members(self) -> Sequence[LayerLearner]:
        """Bottlenecks of the layers; they hold the statistics."""
        raise NotImplementedError

    @property
    @override
    def layers(self) -> Sequence[str]:
        return [member.layer for member in self.members]

    @property
    @override
    def needs_true_score(self) -> bool:
        return self.members[0].needs_true_score

    @property
    @override
    def bfloat16(self) -> bool:
        return self.members[0].bfloat16

    @override
    def sources(self) -> Mapping[str, Source]:
        return {
            self._source_name(member): Source(
                member.layer, partial(FeatureStatistics, member.statistics.per), FeatureStatistics.from_state_dict
            )
            for member in self.members
        }

    @override
    def learned(self) -> Mapping[str, FeatureStatistics]:
        return {self._source_name(member): member.statistics for member in self.members}

    @override
    def take(self, learned: Mapping[str, Any]) -> None:
        for member in self.members:
            member.statistics = learned[self._source_name(member)]

    def _source_name(self, member: LayerLearner) -> str:
        """Return the layer's name; nothing for a single layer, whose state dict is that of its statistics."""
        return member.layer if len(self.members) > 1 else ""


def layer_learners(attributor: Attributor) -> Sequence[LayerLearner]:
    """Return what learns the feature statistics of each layer of a method; empty for a method of another kind."""
    if isinstance(attributor, LayeredAttributor):
        return attributor.members
    return ()
