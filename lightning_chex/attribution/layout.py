"""In which memory layout and precision a network is run, where that is free to choose."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

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
