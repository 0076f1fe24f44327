"""A cut without tracing: the model's own forward runs, and what lies below the layer is replayed, not computed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_chex.attribution.network.layers import check_feature_map, get_layer, hooked


class NotReplayable(Exception):
    """Why a model's lower part cannot be replayed."""


class ReplayPartition:
    """Cuts models whose Python code cannot be traced: branches on values, warnings, checks of the input.

    One ordinary pass records what every module below the layer returns. Above the layer the model's own forward runs,
    but these modules return at once: a NaN placeholder of the right shape if no value of it reaches the output (the
    usual case, which is tried first), else what they returned before.

    Args:
        model: the network, in evaluation mode.
        layer: dotted name of the layer.
        example: one image (1, C, H, W), to see whether a replay reproduces the model's output.

    Raises:
        NotReplayable: it does not.
        LayerError: the layer gives no feature map.
    """

    def __init__(self, model: nn.Module, layer: str, example: Tensor) -> None:
        self._model = model
        self._layer = layer
        self._module = get_layer(model, layer)
        parts = layer.split(".")
        containers = {"", *(".".join(parts[:i]) for i in range(1, len(parts)))}
        # the outermost modules that do not contain the layer
        self._outer = [
            module
            for name, module in model.named_modules()
            if name and name not in containers and name != layer and name.rpartition(".")[0] in containers
        ]
        if any(isinstance(module, torch.jit.ScriptModule) for module in self._outer):
            raise NotReplayable("a module below the layer is TorchScript, which takes no hooks")
        self._placeholders = True
        with torch.no_grad():
            output = model(example)
            for self._placeholders in (True, False):
                if self._reproduces(example, output):
                    return
        raise NotReplayable("a replay of its lower part does not give its output")

    def _reproduces(self, example: Tensor, output: Any) -> bool:
        features, carried = self.below(example)
        try:
            replayed = self.above(features, carried)
        except Exception:  # the model's own code may raise anything when it meets NaN
            if self._placeholders:
                return False
            raise
        return isinstance(output, Tensor) and torch.allclose(replayed, output, rtol=1e-4, atol=1e-5)

    def below(self, images: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """Run the model up to and with the layer."""
        features, notes = self._record(images)
        return features, self._pack(images, notes)

    def carried(self, images: Tensor) -> tuple[Any, ...]:
        """Compute the inputs that the replay needs."""
        return self.below(images)[1]

    def above(self, features: Tensor, carried: tuple[Any, ...]) -> Tensor:
        """Run the model with the layer's output replaced."""
        images, count, *rest = carried
        notes: dict[nn.Module, list[Any]] = {}
        for module, value in zip(rest[:count], rest[count:], strict=True):
            notes.setdefault(module, []).append(value)
        with ExitStack() as stack:
            for module, values in notes.items():
                stack.enter_context(_replaced_forward(module, self._replay(module, values, len(features))))
            stack.enter_context(_replaced_forward(self._module, lambda *inputs, **named: features))
            return self._model(images)

    def _record(self, images: Tensor) -> tuple[Tensor, list[tuple[nn.Module, Tensor]]]:
        notes: list[tuple[nn.Module, Any]] = []
        seen: list[Tensor] = []

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if not seen:
                notes.append(
                    (module, output.clone() if isinstance(output, Tensor) and not self._placeholders else output)
                )

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            # a copy: an in-place activation behind the layer would otherwise change what is kept
            seen.append(check_feature_map(output, self._layer, images).clone())

        with ExitStack() as stack:
            for module in self._outer:
                stack.enter_context(hooked(module, note))
            stack.enter_context(hooked(self._module, keep))
            self._model(images)
        if len(seen) != 1:
            raise NotReplayable(f"its forward calls the layer {len(seen)} times")
        if not all(isinstance(output, Tensor) for _, output in notes):
            raise NotReplayable("a module below the layer returns something else than a tensor")
        return seen[0], notes

    def _pack(self, images: Tensor, notes: list[tuple[nn.Module, Tensor]]) -> tuple[Any, ...]:
        """Images, number of notes, the modules, then what they returned or placeholders, which take no memory."""
        values = [v.new_full((), float("nan")).expand(1, *v.shape[1:]) if self._placeholders else v for _, v in notes]
        # placeholders are wrapped in a tuple, so that select_carried leaves them alone
        kept = [(value,) if self._placeholders else value for value in values]
        return (images, len(notes), *(module for module, _ in notes), *kept)

    def _replay(self, module: nn.Module, values: list[Any], batch: int) -> Callable[..., Any]:
        upcoming: Iterator[Any] = iter(values)
        original = module.forward

        def forward(*inputs: Any, **named: Any) -> Any:
            value = next(upcoming, None)
            if value is None:  # called again above the layer
                return original(*inputs, **named)
            if isinstance(value, tuple):
                return value[0].expand(batch, *value[0].shape[1:])
            return value.clone()  # the model may go on to change it in place

        return forward


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
