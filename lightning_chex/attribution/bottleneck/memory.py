"""Number of targets to optimise jointly: what fits the memory, and on a CPU the caches."""

import os

import torch
from torch import Tensor

from lightning_chex.attribution.bottleneck.optimization import Problem
from lightning_chex.attribution.network.chunks import is_out_of_memory
from lightning_chex.attribution.network.partition import select_carried

CPU_LIMIT = 16
"""Most rows at a time on a CPU; more gain nothing."""

CPU_BYTES = 2**25
"""Most bytes of the noisy copies of a chunk's features on a CPU; more leave its caches and slow it down."""

UNKNOWN_BYTES = 2**32
"""Bytes assumed to be free if the system does not report them."""

MASK_ARRAYS = 16
"""Arrays of the features' size that a bottleneck and one step on it keep at their peak."""


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
        return 1  # the two images that the measurement takes are too much
    return int(max(1, min(limit, budget // row)))


def bytes_per_row(problem: Problem, noise_samples: int) -> int:
    """Return the memory that optimising one row takes: arrays of the mask, and tensors kept for the backward pass.

    The second part is measured, whatever the network: the bytes that two rows keep less those that one keeps, so that
    weights, which are kept too, do not count.
    """
    kept_per_row = _kept_bytes(problem, 2) - _kept_bytes(problem, 1)
    mask = MASK_ARRAYS * problem.features[0].numel() * 4
    return mask + noise_samples * (kept_per_row + 3 * problem.features[0].nbytes)


def _kept_bytes(problem: Problem, rows: int) -> int:
    """Return the bytes that autograd keeps for the backward pass of some rows."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        # several saved tensors may be views of one storage, which counts once
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    first = torch.zeros(rows, dtype=torch.long, device=problem.features.device)
    leaf = problem.features[first].requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # a product, so that an in-place activation does not meet the leaf
        problem.parts.above(leaf * 1, select_carried(problem.carried, len(problem.features), first))
    return sum(kept.values())


def _free_bytes() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # macOS and Windows do not report it
        return UNKNOWN_BYTES
