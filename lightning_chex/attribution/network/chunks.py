"""Working through many rows in chunks that fit the memory."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Protocol, TypeVar

import torch

from lightning_chex.attribution.network.sharing import forget

T = TypeVar("T")

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")
"""Parts of the messages of allocators and libraries, in lower case, when the memory does not suffice."""


class Chunked(Protocol):
    """A method that works in chunks.

    Attributes:
        _fitting_rows: the size chunks were halved to when the memory did not suffice; None before that.
    """

    _fitting_rows: int | None


def in_chunks(count: int, size: int, run: Callable[[int, int], T], method: Chunked) -> Iterator[T]:
    """Yield ``run(start, stop)`` over the range in chunks of equal size, halved whenever the memory does not suffice.

    The method keeps the size that fits, so that its next call begins with it; a warning names it once.

    Raises:
        torch.OutOfMemoryError: even one row is too much.
    """
    size = min(size, method._fitting_rows or size)
    if count:
        # chunks of equal size, so that the last one is not much smaller than the others
        size = ceil(count / ceil(count / size))
    start = 0
    was_halved = False
    while start < count:
        rows = min(size, count - start)
        fits = True
        try:
            result = run(start, start + rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise out_of_memory_error(error) from error
            fits = False
        if not fits:
            # outside of the except block, where the error, and the tensors that its traceback keeps, are released
            size = rows // 2
            was_halved = True
            forget()
            release_memory()
            continue
        if was_halved:
            was_halved = False
            method._fitting_rows = size
            warnings.warn(
                f"the memory did not suffice for the chunks of {type(method).__name__}: halved until {size} image(s) "
                f"at a time fit. The maps are the same; set batch_size: {size} of the attributor to start with it",
                stacklevel=2,
            )
        yield result
        start += rows


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device, or the computer, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    # the CPU's allocator and other backends raise a plain RuntimeError
    text = str(error).lower()
    return any(part in text for part in OUT_OF_MEMORY)


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Raise an error with the remedies if the memory does not suffice for a single image within the context."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory_error(error) from error


def out_of_memory_error(error: BaseException) -> torch.OutOfMemoryError:
    """Return the error for a single image that does not fit, with the remedies."""
    return torch.OutOfMemoryError(
        "the memory does not suffice to explain a single image at a time: take a deeper layer, noise_samples: 1, "
        "bfloat16: true or images of a smaller --data.size, or free memory that others use (a smaller "
        f"--data.batch_size, another device). The device says: {' '.join(str(error).split())[:200]}"
    )


def release_memory() -> None:
    """Release what a CUDA device caches. Call it after an error only: it makes the device wait."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
