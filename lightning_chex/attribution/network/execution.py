"""Fast execution of a network: memory layout, precision, and batch normalisation as one multiply-add."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

T = TypeVar("T")


def layout_of(values: Tensor) -> torch.memory_format:
    """Return ``torch.channels_last`` if (N, C, h, w) values are dense in that order, else the contiguous format."""
    if not values.is_contiguous() and values.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def in_fastest_layout(
    images: Tensor, run: Callable[[torch.memory_format], T], bfloat16: bool
) -> tuple[T, torch.memory_format]:
    """Return ``run(layout)`` and the layout: channels last where convolutions are faster so, if the model allows it.

    They are on a CPU, and on a GPU in half precision. Values do not depend on the layout, but a model may: a
    ``view(...)`` refuses a feature map whose channels come last.
    """
    half = bfloat16 or images.dtype in (torch.float16, torch.bfloat16)
    if images.device.type == "cpu" or half:
        try:
            return run(torch.channels_last), torch.channels_last
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
    return run(torch.contiguous_format), torch.contiguous_format


def precision(device: torch.device, bfloat16: bool) -> AbstractContextManager[Any]:
    """Autocast to bfloat16, or nothing; an autocast around it stays in force then."""
    return torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext()


def affine_batch_norm(device: torch.device) -> AbstractContextManager[Any]:
    """Within the context, on a CPU, batch normalisation by running statistics is one multiply-add.

    PyTorch's own kernel for it, and above all its backward pass, takes about twice as long on a CPU. On other devices
    nothing is changed. Forward and gradient are equal up to rounding.
    """
    return _AffineBatchNorm() if device.type == "cpu" else nullcontext()


class _AffineBatchNorm(TorchFunctionMode):
    """Replaces the function, not the modules: the model and its hooks stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        # the tensors are kept too, so that no id is reused
        self._maps: dict[tuple[float, ...], tuple[Tensor, Tensor, tuple[Tensor | None, ...]]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            found = self._affine(*args, **kwargs)
            if found is not None:
                scale, shift, values = found
                return torch.addcmul(shift, values, scale)
        return func(*args, **kwargs)

    def _affine(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Scale, shift and input, or None where the plain function has to do it."""
        learning = any(p is not None and p.requires_grad for p in (weight, bias))
        if training or learning or running_mean is None or running_var is None or input.dtype != running_mean.dtype:
            return None
        made_of = (running_mean, running_var, weight, bias)
        key = (*map(id, made_of), eps)
        if key not in self._maps:
            scale = torch.rsqrt(running_var + eps)
            scale = scale if weight is None else scale * weight
            shift = -running_mean * scale
            shift = shift if bias is None else shift + bias
            self._maps[key] = (scale, shift, made_of)
        scale, shift, _ = self._maps[key]
        shape = (1, -1) + (1,) * (input.ndim - 2)
        return scale.view(shape), shift.view(shape), input
