"""Feature statistics of layers, from a model's own forward passes or from batches; and which images count."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_chex.attribution.arguments import check_images
from lightning_chex.attribution.bottleneck.statistics import FeatureStatistics, Granularity
from lightning_chex.attribution.network.execution import precision
from lightning_chex.attribution.network.layers import check_feature_map, features_at, get_layer, hooked
from lightning_chex.attribution.network.partition import Partition, partition
from lightning_chex.attribution.network.unwrapping import as_written, frozen


class Counting:
    """Selection of the images of the current batch that observers learn from, if they begin within `governing`.

    An observer keeps the counting it began with, so that several can observe the same forward passes and learn from
    different images. A custom method that overrides `Attributor.observing` calls `present()` when it begins, and `kept`
    for each batch.

    Attributes:
        rows: bool (B,), True for an image that counts; or True for all images, False for none. Set anew before each
            batch.
        seconds: that observers took within forward passes; on a GPU without what it does after they return. Whoever
            reads them sets them back.

    Example:
        >>> import torch
        >>> counting = Counting()
        >>> with counting.governing():
        ...     found = Counting.present()
        >>> counting.rows = torch.tensor([True, False, True])
        >>> found.kept(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
        [[1.0], [3.0]]
    """

    def __init__(self) -> None:
        self.rows: Tensor | bool = True
        self.seconds = 0.0

    @staticmethod
    def present() -> "Counting":
        """That of the innermost `governing` context; outside of all of them, one that counts every image."""
        return _present.get() or Counting()

    @contextmanager
    def governing(self) -> Iterator[None]:
        """Within the context, `present` returns this one."""
        token = _present.set(self)
        try:
            yield
        finally:
            _present.reset(token)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add what happens within the context to `seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def kept(self, features: Tensor) -> Tensor:
        """Keep the features of the images that count.

        Args:
            features: (B, ...), a row an image.

        Returns:
            (B', ...). Where the model has made another number of rows of the batch, rows and images cannot be matched:
            then all of them if every image counts, else none.
        """
        if isinstance(self.rows, bool) or bool(self.rows.all()):
            return features if self.rows is not False else features[:0]
        return features[self.rows.to(features.device)] if len(self.rows) == len(features) else features[:0]


_present: ContextVar[Counting | None] = ContextVar("counting", default=None)


class LayerLearner(Protocol):
    """Protocol of an object that learns the feature statistics of one layer, such as an `IBA`.

    Attributes:
        layer: dotted name.
        statistics: those learnt so far; their ``per`` says which to learn.
        bfloat16: whether the network runs in bfloat16.
    """

    layer: str
    statistics: FeatureStatistics
    bfloat16: bool

    def observing(self, model: nn.Module) -> AbstractContextManager[None]:
        """See `Attributor.observing`."""


@contextmanager
def observed_statistics(model: nn.Module, layer: str, per: Granularity) -> Iterator[FeatureStatistics]:
    """Statistics that grow with every forward pass ``model`` makes on images that count (`Counting`)."""
    statistics, counting = FeatureStatistics(per), Counting.present()

    def collect(module: nn.Module, inputs: Any, output: Any) -> None:
        with counting.timed():
            statistics.update(counting.kept(check_feature_map(output, layer)))

    with as_written(model) as network, hooked(get_layer(network, layer), collect):
        yield statistics


def fitted_statistics(
    model: nn.Module, learners: Sequence[LayerLearner], batches: Iterable[Tensor]
) -> list[FeatureStatistics]:
    """Statistics of each learner's layer over batches (B, C, H, W); for a single one the model runs up to it only.

    Raises:
        LayerError: a layer does not exist or gives no feature map.
        ValueError: fewer than two images.
    """
    found = [FeatureStatistics(learner.statistics.per) for learner in learners]
    layers = [learner.layer for learner in learners]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with frozen(model) as network, torch.no_grad(), precision(device, learners[0].bfloat16):
        parts: Partition | None = None
        for images in batches:
            images = check_images(images).to(device)
            if len(layers) == 1:
                parts = parts or partition(network, layers[0], images)
                features = [parts.below(images)[0]]
            else:
                features, _ = features_at(network, layers, images)
            for statistics, own in zip(found, features, strict=True):
                statistics.update(own)
    if found[0].count < 2:
        raise ValueError(f"the statistics need at least 2 images, the batches held {found[0].count}")
    found[0].warn_if_few()
    return found
