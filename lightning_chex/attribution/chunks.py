"""Working through many rows in chunks that fit the memory."""

import os
from collections.abc import Callable, Iterator
from math import ceil
from typing import TypeVar

import torch
from torch import Tensor

from lightning_chex.attribution.optimization import Problem
from lightning_chex.attribution.partition import select_carried

T = TypeVar("T")

CPU_LIMIT = 16
"""Most rows at a time on a CPU; more gain nothing."""

CPU_BYTES = 2**25
"""Most that the noisy copies of a chunk's features take on a CPU; more leave its caches and slow it down."""

UNKNOWN_BYTES = 2**32
"""What is taken to be free where the system does not say."""

MASK_ARRAYS = 16
"""Arrays of the features' size that a bottleneck and one step on it keep at their peak."""


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
    """How many rows to optimise jointly.

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
    return int(max(1, min(limit, budget // bytes_per_row(problem, noise_samples))))


def _free_bytes() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # macOS and Windows do not tell
        return UNKNOWN_BYTES
