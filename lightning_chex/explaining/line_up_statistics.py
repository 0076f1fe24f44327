"""Feature statistics of the layers that ``evaluate`` compares methods at, gathered while a model trains."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from lightning_chex.attribution import IBA, Attributor, FeatureStatistics, MultiLayerIBA

LINE_UP = "line_up"
"""Where a callback's state holds them."""


class LineUpStatistics:
    """Statistics of the layers of `MultiLayerIBA`'s defaults, less those that a callback's own method looks at.

    With them a checkpoint is enough to compare the whole line-up where there are test images alone. A network without
    these layers has none, and costs nothing.

    Args:
        network: whose layers.
        own: the callback's method.
    """

    def __init__(self, network: nn.Module, own: Attributor) -> None:
        known = {member.layer for member in own.members if member.statistics.per == "neuron"}
        layers = [member.layer for member in MultiLayerIBA().members]
        there = dict(network.named_modules()).keys()
        self.members = [IBA(layer) for layer in layers if layer not in known] if there >= set(layers) else []

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Collect from the forward passes made within the context; see `Attributor.observing`."""
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.observing(model))
            yield

    def synchronize(self) -> None:
        """Merge the statistics of all distributed processes."""
        for member in self.members:
            member.synchronize()

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors, in float32: 14 MB for a DenseNet-121 at 224 px, half of what they take while they grow."""
        return {
            f"{member.layer}/{key}": value.float() if value.is_floating_point() else value
            for member in self.members
            for key, value in member.state_dict().items()
            if member.num_observed
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint holds."""
        for member in self.members:
            own = {key.rpartition("/")[2]: v for key, v in state.items() if key.rpartition("/")[0] == member.layer}
            if own:
                member.statistics = FeatureStatistics.from_state_dict(own)
