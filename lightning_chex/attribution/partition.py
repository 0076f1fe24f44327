"""A model cut at a layer: what lies below is run once per image, what lies above once per optimisation step."""

import difflib
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn


class LayerError(ValueError):
    """The layer to explain at does not exist, or its output is not a feature map."""


class Partition(Protocol):
    """The two parts of a model."""

    def below(self, images: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """Run the model up to and with the layer: features (B, C, h, w), and what else the upper part needs."""

    def carried(self, images: Tensor) -> tuple[Any, ...]:
        """What else the upper part needs, for features that are already at hand."""

    def above(self, features: Tensor, carried: tuple[Any, ...]) -> Tensor:
        """Run the rest on (possibly altered) features and return the model's output."""


def get_layer(model: nn.Module, layer: str) -> nn.Module:
    """Find a module by its dotted name.

    Raises:
        LayerError: no module has that name; the message lists the nearest names.
    """
    modules = dict(model.named_modules())
    if layer and layer in modules:
        return modules[layer]
    names = [name for name in modules if name]
    # a wrong prefix is the commonest slip: let the last part of the name find its like too
    nearest = difflib.get_close_matches(layer, names, n=4, cutoff=0.6)
    nearest += [name for name in names if name.rsplit(".", 1)[-1] == layer.rsplit(".", 1)[-1]][:4]
    top = list(dict.fromkeys(nearest)) or names[:8]
    raise LayerError(
        f"layer={layer!r} is not a module of {type(model).__name__}; nearest names: {', '.join(top) or 'none'}"
    )


def check_feature_map(features: Any, layer: str) -> Tensor:
    """Return the layer's output if it is a feature map (B, C, h, w), else raise a LayerError."""
    if not isinstance(features, Tensor) or features.ndim != 4:
        found = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise LayerError(
            f"layer={layer!r} gives {found}, not a feature map (B, C, h, w): choose a block before pooling"
        )
    return features


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
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1:
                names.append(name)

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if name:
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


def partition(model: nn.Module, layer: str) -> Partition:
    """Cut a model at the output of a layer.

    The modules that contain the layer are traced with torch.fx, all others stay whole, so most models can be cut
    whatever goes on inside their blocks. Where tracing fails, a warning says so and every step runs the whole model:
    the maps are the same, only slower. The model should be in evaluation mode: traced code keeps the mode it saw.

    Raises:
        LayerError: there is no such layer.
    """
    get_layer(model, layer)
    try:
        return _GraphPartition(model, layer)
    except _NotCuttable as reason:
        warnings.warn(
            f"{type(model).__name__} cannot be cut at {layer!r} ({reason}); every step will run the whole model, "
            "which gives the same maps, only slower",
            stacklevel=2,
        )
        return _HookPartition(model, layer)


class _NotCuttable(Exception):
    """Why torch.fx cannot cut this model here."""


class _ContainerTracer(fx.Tracer):
    """Looks into the modules that contain the layer and takes every other module as a whole."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        parts = layer.split(".")
        self._containers = {".".join(parts[:i]) for i in range(1, len(parts))}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._containers


class _GraphPartition:
    def __init__(self, model: nn.Module, layer: str) -> None:
        self._layer = layer
        try:
            graph = _ContainerTracer(layer).trace(model)
        except Exception as error:  # tracing runs the model's own code, which may raise anything
            raise _NotCuttable(
                f"torch.fx: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        nodes = list(graph.nodes)
        calls = [node for node in nodes if node.op == "call_module" and node.target == layer]
        if len(calls) != 1:
            raise _NotCuttable(f"its forward calls the layer {len(calls)} times")
        cut = nodes.index(calls[0])
        # besides the features, whatever else was made below and is used above has to cross the cut
        crossing = [n for n in nodes[:cut] if n.op != "get_attr" and any(nodes.index(user) > cut for user in n.users)]
        self._carries = bool(crossing)
        self._below = fx.GraphModule(model, _lower(nodes, cut, crossing))
        self._above = fx.GraphModule(model, _upper(nodes, cut, crossing))

    def below(self, images: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        features, carried = self._below(images)
        return check_feature_map(features, self._layer), carried

    def carried(self, images: Tensor) -> tuple[Any, ...]:
        return self.below(images)[1] if self._carries else ()

    def above(self, features: Tensor, carried: tuple[Any, ...]) -> Tensor:
        return self._above(features, *carried)


def _lower(nodes: list[fx.Node], cut: int, crossing: list[fx.Node]) -> fx.Graph:
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in nodes[: cut + 1]:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output((copies[nodes[cut]], tuple(copies[node] for node in crossing)))
    return graph


def _upper(nodes: list[fx.Node], cut: int, crossing: list[fx.Node]) -> fx.Graph:
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for i, node in enumerate([nodes[cut], *crossing]):
        copies[node] = graph.placeholder(f"crossing_{i}")
    for node in nodes[:cut]:
        if node.op == "get_attr":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    for node in nodes[cut + 1 :]:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


class _HookPartition:
    def __init__(self, model: nn.Module, layer: str) -> None:
        self._model, self._layer, self._module = model, layer, get_layer(model, layer)

    def below(self, images: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        seen: list[Any] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            # a copy: an in-place activation behind the layer would otherwise change what is kept
            seen.append(output.clone() if isinstance(output, Tensor) else output)

        with hooked(self._module, keep):
            self._model(images)
        if len(seen) != 1:
            raise LayerError(f"layer={self._layer!r} runs {len(seen)} times in one forward pass; it has to run once")
        return check_feature_map(seen[0], self._layer), (images,)

    def carried(self, images: Tensor) -> tuple[Any, ...]:
        return (images,)

    def above(self, features: Tensor, carried: tuple[Any, ...]) -> Tensor:
        with hooked(self._module, lambda module, inputs, output: features):
            return self._model(*carried)


def select_carried(carried: tuple[Any, ...], batch: int, index: Tensor) -> tuple[Any, ...]:
    """Of what belongs to each image, tensors (batch, ...), take the entries ``index``, in that order."""
    return tuple(
        value[index] if isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == batch else value
        for value in carried
    )
