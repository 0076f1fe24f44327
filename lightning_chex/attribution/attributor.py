"""What every attribution method offers, and the template that runs it: a method adds one hook."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_chex.attribution.chunks import in_chunks
from lightning_chex.attribution.information import image_size
from lightning_chex.attribution.targets import Targets
from lightning_chex.attribution.unwrapping import as_written, unwrap

NOT_CONVERGED = 0.1
"""A map whose `Attribution.convergence` is larger is called not converged; a smaller one is no proof that it has."""


@dataclass(frozen=True)
class Attribution:
    """The maps of N targets, and how far their computation has come.

    Attributes:
        maps: float32 (N, H, W); (B, H, W) or (B, T, H, W) where they were asked for so.
        convergence: relative change of each map over the last fifth of the optimisation steps,
            ``sum |map - earlier map| / sum |map|``, in map cells; 0 when nothing moves any more; NaN for methods that
            do not iterate. Shaped like ``maps`` without its last two dimensions.
        cells: of maps that were enlarged from bits per feature cell, these, float32 (N, h, w): ``maps`` is
            ``bits_per_pixel(cells, (H, W))`` to the last bit, and many times as large. None for other maps.
    """

    maps: Tensor
    convergence: Tensor
    cells: Tensor | None = None


class Attributor:
    """A method that says which pixels of an image a model's output rests on.

    Built from plain values; the model comes with each call. A method of one's own implements `maps`, nothing else;
    whatever calls it, a validation hook in inference mode included, `maps` gets clean tensors and a frozen model.

    Example:
        >>> class Occlusion(Attributor):
        ...     unit = "fall of the output"
        ...
        ...     def maps(self, model, images, target):
        ...         whole = model(images).gather(1, target[:, None])
        ...         fall = images.new_zeros(len(images), *images.shape[2:])
        ...         for y in range(images.shape[2]):
        ...             covered = images.clone()
        ...             covered[:, :, y] = 0
        ...             fall[:, y] = whole - model(covered).gather(1, target[:, None])
        ...         return fall
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
        >>> Occlusion().attribute(network, torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0])).shape
        torch.Size([4, 8, 8])
    """

    unit: str = "arbitrary units"
    """What a value of a map means."""

    explains_class: bool | None = True
    """Whether ``target`` is a class index; False: the method explains a score. None: it explains either."""

    batch_size: int | None = 16
    """Targets explained at a time, which bounds the memory and changes no map; halved when the memory does not
    suffice. None: the method chooses."""

    def __init__(self, batch_size: int | None = 16) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be at least 1")
        self.batch_size = batch_size

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("attribute", "explain"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__} overrides {name}(), which belongs to the template: implement "
                    "maps(model, images, target) -> (N, H, W) instead"
                )

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the maps of N targets, one per image: the hook of a method.

        Args:
            model: the network, frozen, in evaluation mode, as its author wrote it: no wrapper, nothing compiled.
            images: (N, C, H, W), copies outside of inference mode and of any graph.
            target: a copy too: a class index or a score each, (N,); None where none was given.

        Returns:
            (N, H, W).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement maps(model, images, target) -> (N, H, W)")

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        """Compute the maps of any targets of a batch, by `maps` in chunks; for methods that share work among targets.

        Args:
            model: as for `maps`.
            images: (B, C, H, W), as for `maps`.
            targets: N of them.

        Returns:
            N maps.
        """

        def run(start: int, stop: int) -> Tensor:
            values = None if targets.values is None else targets.values[start:stop].clone()
            maps = self.maps(model, images[targets.rows[start:stop]], values)
            wanted = (stop - start, *image_size(images))
            if not isinstance(maps, Tensor) or tuple(maps.shape) != wanted:
                found = f"shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
                raise ValueError(f"{type(self).__name__}.maps returned {found}, not a tensor {wanted}")
            return maps.detach().float()

        parts = list(in_chunks(len(targets), self.batch_size or 16, run))
        maps = torch.cat(parts) if parts else images.new_zeros(0, *image_size(images), dtype=torch.float32)
        return Attribution(maps, maps.new_full((len(maps),), torch.nan))

    @final
    def attribute(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Compute one saliency map per target.

        Args:
            model: the network to explain; left bit for bit as it was found, also after an exception.
            images: (B, C, H, W), on the model's device.
            target: one class index per image, (B,), or several, (B, T); with ``rows``, any N of them, (N,). None or
                floats for a score, as the objective asks.
            rows: the image each target belongs to, int64 (N,).

        Returns:
            float32 (B, H, W), (B, T, H, W), or (N, H, W) with ``rows``, in `unit`, on the images' device; no map
            depends on the other images.

        Raises:
            ValueError: shapes of images, target, rows and the model's output do not fit.
        """
        return self.explain(model, images, target, rows).maps

    @final
    def explain(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, rows: Tensor | None = None
    ) -> Attribution:
        """Compute the maps as `attribute` does, and tell how well they have converged."""
        with self._prepared(model, images, target, rows) as (network, clean, targets):
            found = self.compute(network, clean, targets)
        if rows is not None or target is None:
            return found
        cells = None if found.cells is None else found.cells.view(*target.shape, *found.cells.shape[1:])
        maps = found.maps.view(*target.shape, *image_size(images))
        return Attribution(maps, found.convergence.view(target.shape), cells)

    @contextmanager
    def _prepared(
        self, model: nn.Module, images: Tensor, target: Tensor | None, rows: Tensor | None
    ) -> Iterator[tuple[nn.Module, Tensor, Targets]]:
        """The network, frozen and out of its wrappers; the images and targets detached and free of inference mode."""
        targets = Targets.of(images, target, rows)
        with frozen(model) as network:
            yield network, images.clone() if images.is_inference() else images.detach(), targets

    # what a method may need to know beforehand; the defaults need nothing

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
        Images that `Counting.present()` leaves out are not learnt from.
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


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, no parameter gradients, autograd usable; everything restored afterwards, also on an exception.

    Yields the network as its author wrote it, see `as_written`. Leaves inference mode too, so that it can be entered
    from a Lightning validation hook. ``.grad`` is never touched. Threads take turns: what one found while another was
    inside is not what has to be restored.
    """
    with _one_at_a_time:
        lock = _locks.setdefault(unwrap(model), threading.RLock())
    with lock, as_written(model) as network, _frozen(network):
        yield network


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
