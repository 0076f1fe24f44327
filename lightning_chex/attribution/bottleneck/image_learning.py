"""Learning from the images themselves, as a model sees them, for methods that need no layer's features."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_chex.attribution.bottleneck.feature_learning import Counting
from lightning_chex.attribution.network.unwrapping import as_written


@contextmanager
def observed_images(model: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """Within the context, give the images (B, C, H, W) of every forward pass that count (`Counting`) to ``take``."""
    counting = Counting.present()

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        with counting.timed():
            take(counting.kept(inputs[0].detach()))

    with as_written(model) as network:
        handle = network.register_forward_pre_hook(look)
        try:
            yield
        finally:
            handle.remove()
