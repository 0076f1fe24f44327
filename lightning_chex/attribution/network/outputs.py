"""Outputs of models that return a tuple, a dictionary or an object: the tensor that is explained."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def output_tensor(output: Any) -> Tensor:
    """Take the explained tensor from what a model returns.

    Args:
        output: a tensor; an object or a dictionary with ``logits``; or a list, tuple or dictionary that holds one
            tensor, and else None.

    Returns:
        The tensor, of any shape.

    Raises:
        ValueError: the output holds no or several tensors, or one that is not of floats.
    """
    found = output if isinstance(output, Tensor) else _only_tensor(output)
    if found is None:
        raise ValueError(
            f"the model's output is {_described(output)}, which does not tell what is explained; it must be a tensor "
            "(B, K), (B, 1) or (B,), hold a single tensor or have logits: wrap the model in a module that returns the "
            "tensor"
        )
    if not found.is_floating_point():
        raise ValueError(f"the model's output has dtype {found.dtype}, which has no gradient: it must be floats")
    return found


class TensorOutput:
    """Replaces the ``forward`` of a module by one that returns a tensor, see `output_tensor`.

    Attributes:
        forward: what is called.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Call ``forward``, and take the tensor from its output."""
        return output_tensor(self.forward(*args, **kwargs))


@contextmanager
def tensor_output(network: nn.Module) -> Iterator[None]:
    """Let a network return the tensor that is explained, for the length of the context; TorchScript stays as it is."""
    if isinstance(network, torch.jit.ScriptModule):
        yield
        return
    own = network.__dict__.get("forward")
    network.__dict__["forward"] = TensorOutput(network.forward)
    try:
        yield
    finally:
        if own is None:
            del network.__dict__["forward"]
        else:
            network.__dict__["forward"] = own


def _only_tensor(output: Any) -> Tensor | None:
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, Mapping):
        values = list(output.values())
    elif isinstance(output, list | tuple):
        values = list(output)
    else:
        return None
    given = [value for value in values if value is not None]
    return given[0] if len(given) == 1 and isinstance(given[0], Tensor) else None


def _described(output: Any) -> str:
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} with the keys {', '.join(map(str, output)) or 'none'}"
    return f"a {kind} of {len(output)}" if isinstance(output, list | tuple) else f"a {kind}"
