"""Working through many rows in chunks, smaller ones when the memory does not suffice."""

from collections.abc import Callable, Iterator
from math import ceil
from typing import TypeVar

import torch

T = TypeVar("T")


def in_chunks(count: int, size: int, run: Callable[[int, int], T]) -> Iterator[T]:
    """Yield ``run(start, stop)`` over the range in chunks of equal size, halved whenever the memory does not suffice.

    Raises:
        torch.OutOfMemoryError: even one row is too much.
    """
    start = 0
    if count:
        size = ceil(count / ceil(count / size))
    while start < count:
        try:
            yield run(start, min(start + size, count))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if size == 1 or not _is_out_of_memory(error):
                raise
            size = max(1, size // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        start += size


def _is_out_of_memory(error: BaseException) -> bool:
    # the CPU's allocator raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
