"""A validation batch before training begins, read without a trace."""

import copy
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, IterableDataset

from lightning_chex.lightning_private import validation_loaders

MOST = 32
"""Images that are read at most."""


def first_batch(trainer: pl.Trainer) -> Any:
    """Read some validation images, spread evenly over the data set of the first loader, as one batch on the device.

    The samples are read here and not by the loader, whose iterator would draw from the random state.

    Returns:
        The batch as ``validation_step`` gets it; None where there is no loader of samples that are read by number.
    """
    with isolate_rng():
        loaders = validation_loaders(trainer)
        loader = loaders[0] if loaders else None
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return None
        dataset: Any = loader.dataset
        count = len(dataset)
        if not count:
            return None
        if loader.batch_sampler is None:  # each sample is a batch
            batch = loader.collate_fn(dataset[0])
        else:
            # one alone where images may differ in size
            wanted = 1 if loader.batch_size == 1 else min(MOST, count)
            samples = [dataset[round(number * (count - 1) / max(1, wanted - 1))] for number in range(wanted)]
            batch = loader.collate_fn(samples)
        # in-memory data sets may give their own tensors, which a module may change in place
        return trainer.strategy.batch_to_device(copy.deepcopy(batch))
