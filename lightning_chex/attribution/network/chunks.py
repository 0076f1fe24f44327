"""Working through many rows in chunks that fit the memory."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from lightning_chex.attribution.bottleneck.optimization import Problem
from lightning_chex.attribution.network.partition import select_carried
from lightning_chex.attribution.network.sharing import forget

T = TypeVar("T")

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")
"""What allocators and libraries say, in lower case, when the memory does not suffice."""

CPU_LIMIT = 16
"""Most rows at a time on a CPU; more gain nothing."""

CPU_BYTES = 2**25
"""Most that the noisy copies of a chunk's features take on a CPU; more leave its caches and slow it down."""

UNKNOWN_BYTES = 2**32
"""What is taken to be free where the system does not say."""

MASK_ARRAYS = 16
"""Arrays of the features' size that a bottleneck and one step on it keep at their peak."""


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
    start, said = 0, True
    size = min(size, method._fitting_rows or size)
    if count:
        size = ceil(count / ceil(count / size))
    while start < count:
        rows, fits = min(size, count - start), True
        try:
            result = run(start, start + rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise out_of_memory_error(error) from error
            fits = False
        if not fits:  # here the error is gone, and with it the tensors its traceback kept
            size, said = rows // 2, False
            forget()
            release_memory()
            continue
        if not said:
            said, method._fitting_rows = True, size
            warnings.warn(
                f"the memory did not suffice for the chunks of {type(method).__name__}: halved until {size} image(s) "
                f"at a time fit. The maps are the same; batch_size: {size} of the attributor begins there",
                stacklevel=2,
            )
        yield result
        start += rows


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the computer, has no memory left."""
    # the CPU's allocator and other backends raise a plain RuntimeError
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in OUT_OF_MEMORY)


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Say what to do where the memory does not suffice for what the context does with a single image."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory_error(error) from error


def out_of_memory_error(error: BaseException) -> torch.OutOfMemoryError:
    """The error to raise where one image is too much."""
    return torch.OutOfMemoryError(
        "the memory does not suffice to explain a single image at a time: take a deeper layer, noise_samples: 1, "
        "bfloat16: true or images of a smaller --data.size, or free memory that others use (a smaller "
        f"--data.batch_size, another device). The device says: {' '.join(str(error).split())[:200]}"
    )


def release_memory() -> None:
    """Give back what a CUDA device caches; to be called after an error only, as it makes the device wait."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def bytes_per_row(problem: Problem, noise_samples: int) -> int:
    """Memory that optimising one row takes: the mask's arrays and what the upper part keeps for its backward pass.

    The second part is measured, whatever the network: what two rows keep less what one keeps, so that weights, which
    are kept too, do not count.
    """
    one, two = (_kept_bytes(problem, rows) for rows in (1, 2))
    mask = MASK_ARRAYS * problem.features[0].numel() * 4
    return mask + noise_samples * (two - one + 3 * problem.features[0].nbytes)


def _kept_bytes(problem: Problem, rows: int) -> int:
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    first = torch.zeros(rows, dtype=torch.long, device=problem.features.device)
    leaf = problem.features[first].requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # a product, so that an in-place activation does not meet the leaf
        problem.parts.above(leaf * 1, select_carried(problem.carried, len(problem.features), first))
    return sum(kept.values())


def chunk_size(problem: Problem, noise_samples: int, memory: float | None) -> int:
    """Return the number of rows to optimise jointly.

    Args:
        problem: with at least one row.
        noise_samples: noise draws per step.
        memory: budget in GiB; None for 70 % of what is free now. On a CPU the caches set a limit too.

    Returns:
        At least 1.
    """
    device = problem.features.device
    limit = 4096
    if device.type == "cpu":
        limit = max(1, min(CPU_LIMIT, CPU_BYTES // (noise_samples * problem.features[0].nbytes)))
    if memory is not None:
        budget = memory * 2**30
    elif device.type == "cuda":
        budget = 0.7 * torch.cuda.mem_get_info(device)[0]
    else:
        budget = 0.7 * _free_bytes()
    try:
        row = bytes_per_row(problem, noise_samples)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 1  # two images, which the measurement takes, are too much
    return int(max(1, min(limit, budget // row)))


def _free_bytes() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # macOS and Windows do not tell
        return UNKNOWN_BYTES
