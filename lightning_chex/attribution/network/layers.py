"""Layers of a model: finding one by name, and telling whether its output is a feature map."""

import difflib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_chex.attribution.network.unwrapping import OWN_NAMES, named_layers, unwrap


class LayerError(ValueError):
    """The layer to explain at does not exist, or its output is not a feature map."""


class NotFiniteError(ValueError):
    """The network gives NaN or infinity, so there is nothing to explain."""


def get_layer(model: nn.Module, layer: str) -> nn.Module:
    """Find a module by its dotted name, through the wrappers of `unwrap`, whose own names may be in it or not.

    Raises:
        LayerError: no module has that name, and the message lists the nearest names; or it is TorchScript.
    """
    modules = named_layers(model)
    layer = plain_name(modules, layer)
    if layer and layer in modules:
        _check_is_python(modules, layer)
        return modules[layer]
    names = [name for name in modules if name]
    # a wrong prefix is the commonest slip: let the last part of the name find its like too
    nearest = difflib.get_close_matches(layer, names, n=4, cutoff=0.6)
    nearest += [name for name in names if name.rsplit(".", 1)[-1] == layer.rsplit(".", 1)[-1]][:4]
    # nothing like it: the model's main parts, then what they hold
    top = list(dict.fromkeys(nearest)) or sorted(names, key=lambda name: name.count("."))[:12]
    raise LayerError(
        f"layer={layer!r} is not a module of {type(unwrap(model)).__name__}; nearest names: {', '.join(top) or 'none'}"
    )


def plain_name(names: Container[str], layer: str) -> str:
    """Return the name of a layer without wrappers if ``names`` contains it, else the name as it was given.

    Example:
        >>> plain_name(["layer3.0"], "_orig_mod.layer3._orig_mod.0")
        'layer3.0'
    """
    parts = [part for part in layer.split(".") if part not in OWN_NAMES]
    # "module" may be the network's own name
    candidates = (layer, ".".join(parts), ".".join(part for part in parts if part != "module"))
    return next((name for name in candidates if name in names), layer)


def _check_is_python(modules: Mapping[str, nn.Module], layer: str) -> None:
    parts = layer.split(".")
    holders = (modules.get(".".join(parts[:i])) for i in range(len(parts) + 1))
    if any(isinstance(holder, torch.jit.ScriptModule) for holder in holders):
        raise LayerError(
            f"layer={layer!r} is TorchScript, whose features can be neither seen nor changed: give the network before "
            "torch.jit.script or torch.jit.trace, or a method that needs no layer, such as Gradient"
        )


def check_feature_map(features: Any, layer: str, images: Tensor | None = None) -> Tensor:
    """Return the layer's output if it is a feature map (B, C, h, w), else raise a LayerError.

    Args:
        features: what the layer returned.
        layer: its name, for the message.
        images: what the model was given; square ones tell a map whose channels come last, (B, h, w, C), apart.
    """
    if not isinstance(features, Tensor) or features.ndim != 4:
        found = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise LayerError(
            f"layer={layer!r} gives {found}, not a feature map (B, C, h, w): choose a block before pooling"
        )
    if images is not None and _has_channels_last(features, images):
        raise LayerError(
            f"layer={layer!r} gives shape {tuple(features.shape)}, which has its channels last, (B, h, w, C): choose a "
            "layer that gives (B, C, h, w), for instance one behind a permutation"
        )
    return features


def check_runs_once(layer: str, calls: int) -> None:
    """Raise a LayerError unless the layer was called once in a forward pass."""
    if calls != 1:
        raise LayerError(f"layer={layer!r} runs {calls} times in one forward pass; it has to run once")


def features_at(model: nn.Module, layers: Sequence[str], images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run the model once and keep the features of several layers.

    Returns:
        A copy of each layer's features (B, C, h, w), and the model's output.

    Raises:
        LayerError: a layer does not exist, gives no feature map, or does not run once.
    """
    seen: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: str, module: nn.Module, inputs: Any, output: Any) -> None:
        # a copy: an in-place activation behind the layer would otherwise change what is kept
        seen[layer].append(check_feature_map(output, layer, images).clone())

    with ExitStack() as stack:
        for layer in seen:
            stack.enter_context(hooked(get_layer(model, layer), partial(keep, layer)))
        output = model(images)
    for layer, found in seen.items():
        check_runs_once(layer, len(found))
    return [seen[layer][0] for layer in layers], output


def _has_channels_last(features: Tensor, images: Tensor) -> bool:
    """A square image has a square feature map: where only its first two sides are alike, the third is channels."""
    _, first, second, third = features.shape
    return images.shape[-1] == images.shape[-2] and first == second != third


def feature_map_layers(model: nn.Module, images: Tensor, limit: int = 12) -> list[str]:
    """Names of modules whose output is a feature map of more than one cell, the outermost and latest first.

    Args:
        model: the network, which is run once.
        images: (B, C, H, W).
        limit: how many names at most.
    """
    names: list[str] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            is_map = isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1
            if is_map and not _has_channels_last(output, images):
                names.append(name)

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name, module in named_layers(model).items():
            if name and not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                stack.enter_context(hooked(module, note(name)))
        model(images)
    # the latest layers are the usual ones; of them the blocks rather than what is inside
    latest_first = list(dict.fromkeys(reversed(names)))
    return sorted(latest_first, key=lambda name: name.count("."))[:limit]


@contextmanager
def hooked(module: nn.Module, hook: Callable[[nn.Module, Any, Any], Any]) -> Iterator[None]:
    """A forward hook for the length of the context."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
