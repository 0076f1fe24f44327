"""Attributors that learn from images before they explain, and the protocol of fitting, observing and saving."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_chex.attribution.arguments import check_images
from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.network.execution import precision
from lightning_chex.attribution.network.layers import features_at
from lightning_chex.attribution.network.partition import Partition, partition
from lightning_chex.attribution.network.unwrapping import frozen
from lightning_chex.attribution.observing import observed_features, observed_images


class Learned(Protocol):
    """Protocol of what a method has learned from images, such as `FeatureStatistics`."""

    @property
    def count(self) -> int:
        """Number of images it was learned from."""

    def update(self, values: Tensor) -> None:
        """Learn from a batch, (B, ...); an empty batch changes nothing."""

    def check_fitted(self) -> None:
        """Raise a ValueError if it was learned from too few images to be used, and warn if from few."""

    def synchronize(self) -> None:
        """Merge what the processes of a ``torch.distributed`` group have learned, in each of them."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything as plain tensors."""


@dataclass(frozen=True)
class Source:
    """Source of what a method learns.

    Attributes:
        layer: dotted name of the layer whose features are learned from; None for the images themselves.
        empty: creates a `Learned` that has seen no image.
        load: creates a `Learned` from its state dict.
        enough: number of images after which nothing more is learned; None if every image counts.
    """

    layer: str | None
    empty: Callable[[], Learned]
    load: Callable[[dict[str, Tensor]], Learned]
    enough: int | None = None

    def observing(self, model: nn.Module, learned: Learned) -> AbstractContextManager[None]:
        """Within the context, update ``learned`` at every forward pass of ``model``."""
        if self.layer is None:
            return observed_images(model, learned.update)
        return observed_features(model, self.layer, learned.update)

    def is_satisfied(self, learned: Learned) -> bool:
        """Return whether more images would change nothing."""
        return self.enough is not None and learned.count >= self.enough


class FittedAttributor(Attributor):
    """An attributor that learns from images before it explains.

    A subclass implements `sources`, `learned` and `take`; fitting, observing, merging over processes and saving follow
    from them. In a state dict each name begins with that of its source and a slash; a source named ``""`` adds nothing.
    """

    @property
    def bfloat16(self) -> bool:
        """Whether the network runs in bfloat16."""
        return False

    def sources(self) -> Mapping[str, Source]:
        """Return the sources that the method learns from, by name."""
        raise NotImplementedError

    def learned(self) -> Mapping[str, Any]:
        """Return what the method has learned so far, by the names of `sources`."""
        raise NotImplementedError

    def take(self, learned: Mapping[str, Any]) -> None:
        """Replace what the method has learned, by the names of `sources`."""
        raise NotImplementedError

    @contextmanager
    @override
    def observing(self, model: nn.Module) -> Iterator[None]:
        sources = self.sources()
        learned = {name: source.empty() for name, source in sources.items()}
        with ExitStack() as stack:
            for name, source in sources.items():
                stack.enter_context(source.observing(model, learned[name]))
            yield
        # reached without an exception only: after one the former state remains
        self.take(learned)

    @override
    def fit(self, model: nn.Module, batches: Iterable[Tensor]) -> Self:
        sources = self.sources()
        learned = {name: source.empty() for name, source in sources.items()}
        layers = [source.layer for source in sources.values() if source.layer is not None]
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        with frozen(model) as network, torch.no_grad(), precision(device, self.bfloat16):
            features_of = _LayerFeatures(network, layers)
            for images in batches:
                images = check_images(images).to(device)
                features = features_of(images)
                for name, source in sources.items():
                    learned[name].update(images if source.layer is None else features[source.layer])
                if all(source.is_satisfied(learned[name]) for name, source in sources.items()):
                    break
        # all sources have seen the same images, so the first stands for all
        next(iter(learned.values())).check_fitted()
        self.take(learned)
        return self

    @override
    def synchronize(self) -> None:
        for learned in self.learned().values():
            learned.synchronize()

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{_prefix(name)}{key}": value
            for name, learned in self.learned().items()
            for key, value in learned.state_dict().items()
        }

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        learned = {}
        for name, source in self.sources().items():
            prefix = _prefix(name)
            part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            learned[name] = source.load(part)
        self.take(learned)

    @property
    @override
    def num_observed(self) -> int | None:
        return min(learned.count for learned in self.learned().values())


class _LayerFeatures:
    """Compute the features of layers; for a single layer the network runs up to it only."""

    def __init__(self, network: nn.Module, layers: list[str]) -> None:
        self._network = network
        self._layers = layers
        self._partition: Partition | None = None

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features (B, C, h, w) of images (B, C, H, W) by layer."""
        if not self._layers:
            return {}
        if len(self._layers) > 1:
            features, _ = features_at(self._network, self._layers, images)
            return dict(zip(self._layers, features, strict=True))
        layer = self._layers[0]
        if self._partition is None:
            self._partition = partition(self._network, layer, images)
        return {layer: self._partition.below(images)[0]}


def _prefix(name: str) -> str:
    """Return the prefix of a source's names in a state dict."""
    return f"{name}/" if name else ""
