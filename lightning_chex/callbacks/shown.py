"""Which images a callback explains, and how they come to the device."""

from collections.abc import Iterator
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

Stage = Literal["validate", "test"]


class ShownImages:
    """The images the data module offers (``explained_dataset``); without such an offer, the first that come by.

    Args:
        num_images: how many over all processes; -1 for all.
        batch_size: images per batch.
    """

    def __init__(self, num_images: int, batch_size: int) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self._kept: list[dict[str, Any]] = []

    def forget(self) -> None:
        """Drop what was kept."""
        self._kept = []

    @staticmethod
    def offered(trainer: pl.Trainer, stage: Stage) -> Any:
        """Return the dataset the data module offers, None if it offers none."""
        offer = getattr(getattr(trainer, "datamodule", None), "explained_dataset", None)
        return None if offer is None else offer(stage)

    def keep(self, batch: dict[str, Any], world_size: int) -> None:
        """Keep of a passing batch, in main memory, as many images as this process still needs."""
        wanted = float("inf") if self.num_images == -1 else -(-self.num_images // world_size)
        room = wanted - sum(len(kept["image"]) for kept in self._kept)
        if room > 0:
            count = int(min(room, len(batch["image"])))
            self._kept.append({key: _to_cpu(value[:count]) for key, value in batch.items()})

    def batches(self, trainer: pl.Trainer, stage: Stage) -> Iterator[dict[str, Any]]:
        """Yield this process's share, on its device; shares differ in size, so nothing collective may happen here."""
        dataset = self.offered(trainer, stage)
        batches: Any = self._kept
        if dataset is not None:
            count = len(dataset) if self.num_images == -1 else min(self.num_images, len(dataset))
            share = Subset(dataset, range(trainer.global_rank, count, trainer.world_size))
            collate = getattr(trainer.datamodule, "collate", None)  # type: ignore[attr-defined]
            # with a generator of its own, or iterating would draw from the global one
            loader = DataLoader(share, self.batch_size, collate_fn=collate, generator=torch.Generator())
            batches = loader if len(share) else []
        for batch in batches:
            if batch is None:  # all its images were unreadable, and the data module leaves such out
                continue
            moved = trainer.strategy.batch_to_device(batch)
            # the image alone: boxes and scores would be rounded
            yield moved | {"image": trainer.precision_plugin.convert_input(moved["image"])}


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    return [_to_cpu(item) for item in value] if isinstance(value, list) else value
