"""Learning from the forward passes of a network: which images count, and hooks that collect features or images."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from lightning_chex.attribution.network.layers import check_feature_map, get_layer, hooked
from lightning_chex.attribution.network.unwrapping import as_written


class ObservedRows:
    """Selection of the images of the current batch that a method learns from.

    A method that learns keeps the selection that is active when it begins, so that several methods can observe the same
    forward passes and learn from different images. A custom method that overrides `Attributor.observing` calls
    `current` when it begins, and `select` for each batch.

    Attributes:
        rows: bool (B,), True for an image to learn from; or True for all images, False for none. Set anew before each
            batch.
        seconds: time that learning took within forward passes; on a GPU without the work that is still queued. Whoever
            reads it resets it.

    Example:
        >>> import torch
        >>> observed = ObservedRows()
        >>> with observed.active():
        ...     current = ObservedRows.current()
        >>> observed.rows = torch.tensor([True, False, True])
        >>> current.select(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
        [[1.0], [3.0]]
    """

    def __init__(self) -> None:
        self.rows: Tensor | bool = True
        self.seconds = 0.0

    @staticmethod
    def current() -> "ObservedRows":
        """Return the selection of the innermost `active` context; outside of all, one that selects every image."""
        return _current.get() or ObservedRows()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the selection that `current` returns within the context."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the duration of the context to `seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def select(self, values: Tensor) -> Tensor:
        """Select the rows of the images to learn from.

        Args:
            values: (B, ...), a row per image.

        Returns:
            (B', ...). If the model has changed the number of rows of the batch, rows and images cannot be matched: then
            all rows if every image is selected, else none.
        """
        if self.rows is False:
            return values[:0]
        if isinstance(self.rows, bool) or bool(self.rows.all()):
            return values
        if len(self.rows) != len(values):
            return values[:0]
        return values[self.rows.to(values.device)]


_current: ContextVar[ObservedRows | None] = ContextVar("observed rows", default=None)


@contextmanager
def observed_features(model: nn.Module, layer: str, take: Callable[[Tensor], None]) -> Iterator[None]:
    """Within the context, pass the features (B', C, h, w) of a layer to ``take`` at every forward pass of ``model``.

    Only the images that `ObservedRows` selects are passed.
    """
    observed = ObservedRows.current()

    def collect(module: nn.Module, inputs: Any, output: Any) -> None:
        with observed.timed():
            take(observed.select(check_feature_map(output, layer)))

    with as_written(model) as network, hooked(get_layer(network, layer), collect):
        yield


@contextmanager
def observed_images(model: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """Within the context, pass the images (B', C, H, W) to ``take`` at every forward pass of ``model``.

    Only the images that `ObservedRows` selects are passed.
    """
    observed = ObservedRows.current()

    def collect(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        with observed.timed():
            take(observed.select(inputs[0].detach()))

    with as_written(model) as network:
        handle = network.register_forward_pre_hook(collect)
        try:
            yield
        finally:
            handle.remove()
