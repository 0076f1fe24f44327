"""Features that several methods need of the same images: run for the first that asks, kept for the others."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

T = TypeVar("T")

_KEPT: ContextVar[dict[Hashable, tuple[object, ...]] | None] = ContextVar("kept features", default=None)


@contextmanager
def shared_features() -> Iterator[None]:
    """Let all methods within share what they run of one network on the same tensor of images, until it ends.

    Maps are the same to the last bit. Neither the network nor the images may be changed within.
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def shared(model: nn.Module, images: Tensor, what: Hashable, run: Callable[[], T]) -> T:
    """Return ``run()``, or what it gave before of this model and these images; outside of `shared_features` run it.

    Args:
        model: the network.
        images: (B, C, H, W); the same place in memory counts as the same images.
        what: all else that the result depends on.
        run: what is run; nobody may write into what it returns.
    """
    kept = _KEPT.get()
    if kept is None:
        return run()
    kind = images.device.type
    around = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    place = (images.data_ptr(), images._version, images.dtype, tuple(images.shape), images.stride())
    key = (id(model), place, around, what)
    if key not in kept:
        kept[key] = (run(), model, images)  # while these are held, nothing else gets their places
    return cast(T, kept[key][0])


def forget() -> None:
    """Give back what is kept, when the memory does not suffice; it is run again where it is needed."""
    kept = _KEPT.get()
    if kept is not None:
        kept.clear()
