"""The template of every attribution method: a method implements one hook, `maps`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from lightning_chex.attribution.arguments import check_images, check_model, images_for, row_tensor, target_tensor
from lightning_chex.attribution.description import COLORS, MethodDescription
from lightning_chex.attribution.network.chunks import in_chunks
from lightning_chex.attribution.network.layers import LayerError, feature_map_layers, features_at, get_layer
from lightning_chex.attribution.network.outputs import tensor_output
from lightning_chex.attribution.network.unwrapping import frozen
from lightning_chex.attribution.targets import Targets
from lightning_chex.extras import check_extra

Target = Tensor | int | Sequence[Any] | None
"""Class indices or scores as a user may give them; a numpy array too."""

Rows = Tensor | Sequence[int] | None

NOT_CONVERGED = 0.1
"""A map whose `Attribution.convergence` is larger is called not converged; a smaller one is no proof that it has."""


@dataclass(frozen=True)
class Attribution:
    """The maps of N targets, and how far each has converged.

    Attributes:
        maps: float32 (N, H, W); (B, H, W) or (B, T, H, W) as they were asked for.
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
    """A method that computes, for each pixel of an image, how much a model's output depends on it.

    Built from plain values; the model comes with each call. A custom method has to implement `maps` only, which gets
    clean tensors and a frozen model whatever calls it, a validation hook in inference mode included.

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

    # Class attributes that a method declares

    title: str = ""
    """Name for people; empty for the name of the class."""

    color: str | None = None
    """Colour in charts, one of `COLORS`; None for any that no other method has chosen."""

    description: str = ""
    """One or two sentences for readers of a report; empty for the first sentence of the class's docstring."""

    unit: str = "arbitrary units"
    """What a value of a map means."""

    package: str | None = None
    """Import name of a package that only this method needs, a key of `lightning_chex.extras.EXTRAS`."""

    explains_class: bool | None = True
    """Whether ``target`` is a class index; False: the method explains a score. None: it explains either."""

    batch_size: int | None = 16
    """Targets explained at a time, which bounds the memory and changes no map; halved when the memory does not
    suffice. None: the method chooses."""

    _fitting_rows: int | None = None

    @property
    def needs_true_score(self) -> bool:
        """Whether ``target`` must be the true score of each image, as the objective squared_error needs it."""
        return False

    @property
    def layers(self) -> Sequence[str]:
        """Dotted names of the layers whose feature maps the method uses."""
        return ()

    @property
    def total_unit(self) -> str:
        """Unit of the sum of a map over its pixels: ``bits`` for bits per pixel, ``sum`` for any other unit."""
        return "bits" if self.unit == "bits per pixel" else "sum"

    def __init__(self, batch_size: int | None = 16) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be at least 1")
        self.batch_size = batch_size

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.color is not None and cls.color not in COLORS:
            colors = ", ".join(COLORS)
            raise TypeError(f"{cls.__name__}.color={cls.color!r} is unknown: choose {colors}, or leave it out")
        for name in ("attribute", "explain"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__} overrides {name}(), which belongs to the template: implement "
                    "maps(model, images, target) -> (N, H, W) instead"
                )

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the maps of N targets, one per image: the hook of a method.

        Args:
            model: the network, frozen, in evaluation mode, as its author wrote it: no wrapper, nothing compiled. It
                returns a tensor, see `output_tensor`.
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
            shape = (stop - start, *images.shape[-2:])
            if not isinstance(maps, Tensor):
                raise ValueError(f"{type(self).__name__}.maps returned {type(maps).__name__}, not a tensor {shape}")
            if tuple(maps.shape) != shape:
                raise ValueError(f"{type(self).__name__}.maps returned shape {tuple(maps.shape)}, not a tensor {shape}")
            return maps.detach().float()

        parts = list(in_chunks(len(targets), self.batch_size or 16, run, self))
        maps = torch.cat(parts) if parts else images.new_zeros(0, *images.shape[-2:], dtype=torch.float32)
        return Attribution(maps, maps.new_full((len(maps),), torch.nan))

    @final
    def attribute(self, model: nn.Module, images: Tensor, target: Target = None, rows: Rows = None) -> Tensor:
        """Compute one saliency map per target.

        Args:
            model: the network to explain; left bit for bit as it was found, also after an exception. It returns a
                tensor, or something that holds a single tensor or has ``logits``.
            images: (B, C, H, W), finite floats on the model's device; converted to the precision of its weights.
            target: one class index per image, (B,), or several, (B, T); with ``rows``, any N of them, (N,). A tensor of
                any integer type, a list or a numpy array; one integer for all. None or floats for a score, as the
                objective asks.
            rows: the image each target belongs to, integers (N,).

        Returns:
            float32 (B, H, W), (B, T, H, W), or (N, H, W) with ``rows``, in `unit`, on the images' device; no map
            depends on the other images.

        Raises:
            TypeError: model, images, target or rows are of another type.
            ValueError: shapes of images, target, rows and the model's output do not fit.
        """
        return self.explain(model, images, target, rows).maps

    @final
    def explain(self, model: nn.Module, images: Tensor, target: Target = None, rows: Rows = None) -> Attribution:
        """Compute the maps as `attribute` does, and tell how well they have converged."""
        with self._prepared(model, images, target, rows) as (network, clean, targets):
            flat = self.compute(network, clean, targets)
        maps = flat.maps.view(*targets.shape, *images.shape[-2:])
        cells = flat.cells
        if cells is not None:
            cells = cells.view(*targets.shape, *cells.shape[1:])
        return Attribution(maps, flat.convergence.view(targets.shape), cells)

    @contextmanager
    def _prepared(
        self, model: nn.Module, images: Tensor, target: Target, rows: Rows
    ) -> Iterator[tuple[nn.Module, Tensor, Targets]]:
        """Check and convert all arguments, in this place alone.

        The network is frozen, out of its wrappers and returns a tensor; images and targets are detached and free of
        inference mode.
        """
        self.check_installed()
        images = images_for(check_model(model), images)
        row_index = row_tensor(rows)
        count = len(images) if row_index is None else len(row_index)
        targets = Targets.of(images, target_tensor(target, count), row_index)
        with frozen(model) as network, tensor_output(network):
            yield network, images.clone() if images.is_inference() else images.detach(), targets

    def about(self) -> MethodDescription:
        """Describe the method to readers of a report, by its class attributes."""
        # vars, as a class without a docstring must not take that of its base
        first_line = (vars(type(self)).get("__doc__") or "").strip().partition("\n")[0]
        return MethodDescription(self.title or type(self).__name__, self.color, self.description or first_line)

    # Checks before any long work; an overriding method calls these too

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a ValueError if this method cannot explain ``model``, before any long work begins.

        Args:
            model: the network to explain.
            images: (B, C, H, W); if given, what only a forward pass can tell is checked too.

        Raises:
            LayerError: the model lacks one of `layers` or, with images, its output is no feature map.
        """
        self.check_installed()
        for layer in self.layers:
            get_layer(check_model(model), layer)
        if images is None or not self.layers:
            return
        check_images(images)
        with frozen(model) as network, torch.no_grad():
            try:
                features_at(network, self.layers, images)
            except LayerError as error:
                names = ", ".join(feature_map_layers(network, images))
                raise LayerError(f"{error}; layers with a feature map: {names}") from None

    def check_installed(self) -> None:
        """Raise a MissingExtraError if the package that the method needs is not installed."""
        if self.package is not None:
            check_extra(self.package, f"the method {type(self).__name__}")

    def check_target(self, has_classes: bool, has_labels: bool = True) -> None:
        """Raise a ValueError if this method does not explain what the model predicts.

        Args:
            has_classes: whether the model predicts classes; else it predicts a score.
            has_labels: whether the true scores of the images are known.
        """
        if self.explains_class is not None and self.explains_class != has_classes:
            if self.explains_class:
                raise ValueError(
                    "this method explains classes, not a score: give the attributor objective: deviation, or another "
                    "method"
                )
            raise ValueError(
                "this method explains a score, not classes: give the attributor a class objective, such as "
                "binary_cross_entropy, or another method"
            )
        if self.needs_true_score and not has_labels:
            raise ValueError(
                "the objective squared_error explains the true score, and these images have no labels: give the "
                "attributor objective: deviation"
            )

    # Learning from images; a method that does so is a FittedAttributor, any other learns nothing

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Within the context, learn from every forward pass of ``model``.

        What was learned replaces the former state when the context ends without an exception; after one, the former
        state remains. Images that `ObservedRows.current()` leaves out are not learned from.
        """
        yield

    def fit(self, model: nn.Module, batches: Iterable[Tensor]) -> Self:
        """Learn from images, replacing what was learned before.

        Args:
            model: the network to explain; left as it was found.
            batches: image batches (B, C, H, W), moved to the model's device; some hundred images, not those that will
                be explained. Not read by a method that learns nothing.

        Returns:
            The attributor itself.

        Raises:
            LayerError: a layer does not exist or gives no feature map.
            ValueError: fewer than two images.
        """
        return self

    def synchronize(self) -> None:
        """Merge what the processes of a ``torch.distributed`` group have learned; every process must call it."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned as plain tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace what was learned by the state of another attributor of the same settings.

        Raises:
            ValueError: the state is not one of this method.
        """

    @property
    def num_observed(self) -> int | None:
        """Number of images the method has learned from; None for a method that learns nothing."""
        return None
