"""Detection of duplicate images in a batch, which a distributed sampler adds to give every process as many."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler

from lightning_chex.lightning_private import SAMPLERS, batch_sampler_of


def unrepeated_rows(trainer: pl.Trainer, batch: Any, count: int, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
    """Say which images of a batch of ``validate``, ``test`` or ``predict`` count, each once over all processes.

    Lightning gives the loaders of a distributed run torch's ``DistributedSampler``. What process r reads at position p
    is number p * processes + r in the order of all images. Behind the last image the first ones come again, so that
    all processes run as many batches and none waits for another forever. Those repeats do not count.

    Args:
        trainer: in the midst of the loop whose batch it is.
        batch: may say in ``positions`` which of the images read by this process it holds, as a loader that leaves some
            out does (``data/unreadable.py``); else it holds those that follow on the last batch.
        count: B, images in the batch.
        batch_idx: number of the batch.
        dataloader_idx: number of the loader, of those the trainer has.

    Returns:
        bool (B,) on the CPU. All True in one process, and where the loader has a sampler of another kind.
    """
    batches = None if trainer.world_size == 1 else batch_sampler_of(trainer, dataloader_idx)
    sampler: Any = getattr(batches, "sampler", None)
    # others, children too, may have another order
    if type(batches) is not BatchSampler or type(sampler) not in SAMPLERS:
        return torch.ones(count, dtype=torch.bool)
    positions = batch.get("positions") if isinstance(batch, dict) else None
    if positions is None:
        start = batch_idx * batches.batch_size
        positions = list(range(start, start + count))
    return torch.tensor(positions) * sampler.num_replicas + sampler.rank < len(sampler.dataset)
