"""What every attribution method offers, whatever it computes."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


class Attributor(ABC):
    """A method that says which pixels of an image a model's output rests on.

    Built from plain values; the model comes with each call. A method that needs nothing but the model and the image
    implements `attribute` alone.
    """

    @property
    def explains_class(self) -> bool | None:
        """Whether ``target`` is a class index; else the method explains a score. None: it explains either."""
        return True

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a ValueError if this method cannot explain ``model``, before any long work begins.

        Args:
            model: the network to explain.
            images: (B, C, H, W); if given, what only a forward pass can tell is checked too.
        """

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Within the context, learn from whatever forward passes ``model`` makes anyway.

        What was learnt takes effect when the context ends without an exception; after one, the former state stands.
        """
        yield

    def fit(self, model: nn.Module, batches: Iterable[Tensor]) -> Self:
        """Learn what the method needs to know of the data.

        Args:
            model: the network to explain.
            batches: image batches (B, C, H, W), not those that will be explained.

        Returns:
            The attributor itself.
        """
        return self

    def synchronize(self) -> None:
        """Merge what the processes of a ``torch.distributed`` group have learnt; every process must call it."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learnt as plain tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what another attributor of the same settings has learnt."""

    @property
    def num_observed(self) -> int | None:
        """How many images the method has learnt from; None if it has nothing to learn."""
        return None

    @abstractmethod
    def attribute(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Compute one saliency map per target.

        Args:
            model: the network to explain; it is left exactly as it was found.
            images: (B, C, H, W), on the model's device.
            target: one class index per image, (B,), or several, (B, T); for regression as the objective asks.
            rows: the image each target belongs to, int64 (N,), for targets (N,) of any images in any number.

        Returns:
            float32 (B, H, W), (B, T, H, W) or (N, H, W), on the images' device; no map depends on the other images.
        """


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no parameter gradients, autograd usable; everything restored afterwards, also on an exception.

    Leaves inference mode too, so that it can be entered from a Lightning validation hook. ``.grad`` is never touched.
    Threads take turns: what one found while another was inside is not what has to be restored.
    """
    with _one_at_a_time:
        lock = _locks.setdefault(model, threading.RLock())
    with lock, _frozen(model):
        yield


_one_at_a_time = threading.Lock()
_locks: "WeakKeyDictionary[nn.Module, threading.RLock]" = WeakKeyDictionary()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    requires_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with torch.inference_mode(False), torch.enable_grad():
        try:
            for module, _ in training:
                module.training = False
            for parameter, _ in requires_grad:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, mode in training:
                module.training = mode
            for parameter, flag in requires_grad:
                parameter.requires_grad_(flag)
