"""A model cut at a layer: what lies below is run once per image, what lies above once per optimisation step."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from torch import Tensor, fx, nn

from lightning_chex.attribution.network.layers import LayerError, check_feature_map, get_layer, hooked, plain_name
from lightning_chex.attribution.network.outputs import TensorOutput, output_tensor
from lightning_chex.attribution.network.replay import NotReplayable, ReplayPartition
from lightning_chex.attribution.network.unwrapping import named_layers, unwrap


class Partition(Protocol):
    """The two parts of a model."""

    def below(self, images: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """Run the model up to and with the layer: features (B, C, h, w), and what else the upper part needs."""

    def carried(self, images: Tensor) -> tuple[Any, ...]:
        """Compute the other inputs of the upper part, for features that are already computed."""

    def above(self, features: Tensor, carried: tuple[Any, ...]) -> Tensor:
        """Run the rest on (possibly altered) features and return the model's output."""


def partition(model: nn.Module, layer: str, example: Tensor) -> Partition:
    """Cut a model at the output of a layer.

    The modules that contain the layer are traced with torch.fx, all others stay whole, so most models can be cut
    whatever goes on inside their blocks. A model whose forward branches on values cannot be traced; then its own
    forward runs at every step, but what lies below the layer is replayed instead of computed. Where that does not
    reproduce the model's output, a warning says so and every step runs the whole model. The maps are the same in all
    three cases. The model should be in evaluation mode: traced code keeps the mode it saw.

    Args:
        model: the network.
        layer: dotted name of a module that runs once in a forward pass.
        example: images (B, C, H, W) of the size that will be explained; the first is used to try a replay.

    Raises:
        LayerError: there is no such layer, or it gives no feature map.
    """
    get_layer(model, layer)
    model = unwrap(model)
    layer = plain_name(named_layers(model), layer)
    try:
        return _GraphPartition(model, layer)
    except _NotCuttable as error:
        reason = str(error)
    try:
        return ReplayPartition(model, layer, example[:1])
    except NotReplayable as error:
        reason = f"{reason}; {error}"
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
        if model._forward_hooks or model._forward_pre_hooks:  # those of other modules are traced with them
            raise _NotCuttable("it has forward hooks of its own, which torch.fx leaves out")
        if not _runs_forward_of_class(model):
            raise _NotCuttable("its forward was replaced on the object, which torch.fx leaves out")
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
        self._below = _runnable(model, _lower(nodes, cut, crossing))
        self._above = _runnable(model, _upper(nodes, cut, crossing))

    def below(self, images: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        features, carried = self._below(images)
        return check_feature_map(features, self._layer, images), carried

    def carried(self, images: Tensor) -> tuple[Any, ...]:
        return self.below(images)[1] if self._carries else ()

    def above(self, features: Tensor, carried: tuple[Any, ...]) -> Tensor:
        return output_tensor(self._above(features, *carried))  # the graph is that of the class's own forward


def _runs_forward_of_class(model: nn.Module) -> bool:
    """Whether the model's forward is its class's, possibly compiled or with its output taken to a tensor."""
    forward: Any = model.forward
    if isinstance(forward, TensorOutput):
        forward = forward.forward
    # torch.compile(model.forward) wraps it in several functions of its own, which call it unchanged
    while getattr(forward, "__globals__", {}).get("__name__", "").startswith("torch._dynamo"):
        forward = getattr(forward, "__wrapped__", None)
    return getattr(forward, "__func__", forward) is type(model).forward


def _runnable(model: nn.Module, graph: fx.Graph) -> Callable[..., Any]:
    """The graph's code on the model's modules; an ``fx.GraphModule`` would keep its source until the program ends."""
    code = graph.python_code("self")
    names = dict(code.globals)
    exec(code.src, names)
    return partial(names["forward"], model)


def _lower(nodes: list[fx.Node], cut: int, crossing: list[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies = dict[fx.Node, fx.Node]()
    for node in nodes[: cut + 1]:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output((copies[nodes[cut]], tuple(copies[node] for node in crossing)))
    return graph


def _upper(nodes: list[fx.Node], cut: int, crossing: list[fx.Node]) -> fx.Graph:
    graph = fx.Graph()
    copies = dict[fx.Node, fx.Node]()
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
        self._model = model
        self._layer = layer
        self._module = get_layer(model, layer)

    def below(self, images: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        seen: list[Any] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            # a copy: an in-place activation behind the layer would otherwise change what is kept
            seen.append(output.clone() if isinstance(output, Tensor) else output)

        with hooked(self._module, keep):
            self._model(images)
        if len(seen) != 1:
            raise LayerError(f"layer={self._layer!r} runs {len(seen)} times in one forward pass; it has to run once")
        return check_feature_map(seen[0], self._layer, images), (images,)

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
