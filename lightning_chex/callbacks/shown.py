"""Which images a callback explains, and how they come to the device."""

from collections.abc import Iterable, Iterator
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
        self._names: tuple[Any, frozenset[str]] = (None, frozenset())

    def forget(self) -> None:
        """Drop what was kept."""
        self._kept = []

    @staticmethod
    def offers(trainer: pl.Trainer) -> bool:
        """Say whether the data module offers images."""
        return getattr(getattr(trainer, "datamodule", None), "explained_dataset", None) is not None

    @staticmethod
    def offered(trainer: pl.Trainer, stage: Stage) -> Any:
        """Return the dataset the data module offers, None if it offers none."""
        offer = getattr(getattr(trainer, "datamodule", None), "explained_dataset", None)
        return None if offer is None else offer(stage)

    def unexplained(self, trainer: pl.Trainer, batch: dict[str, Any]) -> Tensor:
        """Say which images of a validation batch will not be explained, so that statistics may rest on them.

        Returns:
            bool (B,). All True where images are offered and the batch does not name its own.
        """
        images = len(batch["image"])
        if not self.offers(trainer):
            return torch.arange(images) >= self._room(trainer.world_size)
        names = batch.get("image_id", [None] * images)
        explained = self._offered_names(trainer)
        return torch.tensor([name not in explained for name in names], dtype=torch.bool)

    def _offered_names(self, trainer: pl.Trainer) -> frozenset[str]:
        """Ids of the images explained at validation, by all processes together; looked up once for a data module."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if self._names[0] is not datamodule:
            dataset = self.offered(trainer, "validate")
            chosen = range(len(dataset) if self.num_images == -1 else min(self.num_images, len(dataset)))
            self._names = datamodule, frozenset(_ids_of(dataset, chosen))
        return self._names[1]

    def _room(self, world_size: int) -> float:
        """How many images this process still has to keep."""
        wanted = float("inf") if self.num_images == -1 else -(-self.num_images // world_size)
        return wanted - sum(len(kept["image"]) for kept in self._kept)

    def keep(self, batch: dict[str, Any], world_size: int) -> None:
        """Keep of a passing batch, in main memory, as many images as this process still needs."""
        count = int(min(self._room(world_size), len(batch["image"])))
        if count > 0:
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


def _ids_of(dataset: Any, chosen: Iterable[int]) -> list[str]:
    """Ids of some images; read from the samples only where the dataset does not know them."""
    while not hasattr(dataset, "image_ids"):
        if isinstance(dataset, Subset):
            chosen = [dataset.indices[i] for i in chosen]
            dataset = dataset.dataset
        else:
            samples = (dataset[i] for i in chosen)
            return [sample["image_id"] for sample in samples if sample is not None and "image_id" in sample]
    return [dataset.image_ids[i] for i in chosen]


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    return [_to_cpu(item) for item in value] if isinstance(value, list) else value
