"""Average pools and sums written as plain functions, with a gradient that is their relevance rule."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from zennit.core import stabilize

_AVERAGES = (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean)
_SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)


def proportional_functions() -> AbstractContextManager[Any]:
    """Within the context, averages and sums of two features send back relevance, in proportion to their inputs.

    zennit's hooks sit on modules and do not see them. The plain gradient would share an average's relevance equally,
    also among cells that were 0 and gave nothing, and give the relevance of a sum to both its parts in full.
    """
    return _ProportionalFunctions()


class _ProportionalFunctions(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _AVERAGES and args and _carries_relevance(args[0]) and args[0].ndim == 4:
            return _Proportional.apply(lambda x: func(x, *args[1:], **kwargs), args[0])
        if func in _SUMS and len(args) == 2 and all(_carries_relevance(arg) for arg in args):
            return _Proportional.apply(lambda a, b: torch.add(a, b, **kwargs), *args)
        return func(*args, **kwargs)


def _carries_relevance(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class _Proportional(torch.autograd.Function):
    """A linear function whose inputs receive R_i = x_i A_ij / z_j R_j, summed over j."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [value.detach().requires_grad_() for value in ctx.saved_tensors]
        with torch.enable_grad():
            output = ctx.function(*inputs)
        shares = torch.autograd.grad(output, inputs, relevance[0] / stabilize(output.detach(), 1e-9))
        return None, *(value.detach() * share for value, share in zip(inputs, shares, strict=True))
