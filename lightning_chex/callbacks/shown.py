"""Which images a callback explains, and their transfer to the device."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import Subset

from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import Samples, Stage, XrayDataModule, described, names_of
from lightning_chex.data.contract_checks import Checked


class ShownImages:
    """The images the data module offers (``explained_dataset``); without such an offer, the first ones seen.

    Args:
        num_images: how many over all processes; -1 for all.
        batch_size: images per batch.
    """

    def __init__(self, num_images: int, batch_size: int) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self._kept: list[dict[str, Any]] = []
        self._names: tuple[XrayDataModule | None, frozenset[str] | None] = (None, None)

    def forget(self) -> None:
        """Drop what was kept."""
        self._kept = []

    @staticmethod
    def offered(trainer: pl.Trainer, stage: Stage) -> Samples | None:
        """Return the dataset the data module offers, None if it offers none."""
        dataset = data_of(trainer).explained_dataset(stage)
        return None if dataset is None else Checked(data_of(trainer), dataset, f"images explained at {stage}")

    def offers(self, trainer: pl.Trainer) -> bool:
        """Say whether the data module offers images at validation; asked once for a data module."""
        return self._offered_names(trainer) is not None

    def unexplained(self, trainer: pl.Trainer, batch: dict[str, Any], counted: Tensor) -> Tensor:
        """Say which images of a validation batch will not be explained, so that statistics may rest on them.

        Args:
            trainer: of the validation.
            batch: has an ``image`` (B, C, H, W).
            counted: bool (B,), False for what a distributed sampler repeats.

        Returns:
            bool (B,). All True where images are offered and the batch does not name its own.
        """
        explained = self._offered_names(trainer)
        if explained is None:
            rows = torch.ones(len(counted), dtype=torch.bool)
            rows[self._wanted(trainer, counted)] = False
            return rows
        names = names_of(batch.get("image_id", [None] * len(counted)))
        return torch.tensor([name not in explained for name in names], dtype=torch.bool)

    def _offered_names(self, trainer: pl.Trainer) -> frozenset[str] | None:
        """Ids of the images explained at validation, by all processes together; looked up once for a data module."""
        data = data_of(trainer)
        if self._names[0] != data:
            dataset = self.offered(trainer, "validate")
            self._names = data, None if dataset is None else frozenset(_ids_of(dataset, self._chosen(dataset)))
        return self._names[1]

    def _chosen(self, dataset: Samples) -> range:
        return range(len(dataset) if self.num_images == -1 else min(self.num_images, len(dataset)))

    def _wanted(self, trainer: pl.Trainer, counted: Tensor) -> list[int]:
        """Rows of a passing batch that are kept: the first that count, as many as this process still needs."""
        rows: list[int] = counted.nonzero().flatten().tolist()
        if self.num_images == -1:
            return rows
        return rows[: len(self._share(trainer, self.num_images)) - self._count]

    @property
    def _count(self) -> int:
        return sum(len(kept["image"]) for kept in self._kept)

    def keep(self, trainer: pl.Trainer, batch: dict[str, Any], counted: Tensor) -> None:
        """Keep of a passing batch, in main memory, as many of the images that count as this process still needs."""
        rows = self._wanted(trainer, counted)
        if rows:
            place = trainer.global_rank + trainer.world_size * self._count
            places = [place + trainer.world_size * i for i in range(len(rows))]
            self._kept.append({key: _rows_of(value, rows) for key, value in batch.items()} | {"place": places})

    def batches(self, trainer: pl.Trainer, stage: Stage) -> Iterator[dict[str, Any]]:
        """Yield this process's share, on its device; shares differ in size, so nothing collective may happen here.

        Beside what the data give, a batch holds ``place``: where each image stands among those of all processes.
        """
        dataset = self.offered(trainer, stage)
        for batch in self._kept if dataset is None else self._read(trainer, dataset):
            moved = trainer.strategy.batch_to_device(batch)
            # the image alone: boxes and scores would be rounded
            yield moved | {"image": trainer.precision_plugin.convert_input(moved["image"])}

    def _read(self, trainer: pl.Trainer, dataset: Samples) -> Iterator[dict[str, Any]]:
        collate = data_of(trainer).collate
        share = self._share(trainer, len(self._chosen(dataset)))
        for start in range(0, len(share), self.batch_size):
            samples = {place: dataset[place] for place in share[start : start + self.batch_size]}
            # None is unreadable, and the data module leaves such out
            read = {place: sample for place, sample in samples.items() if sample is not None}
            if read:
                yield collate(list(read.values())) | {"place": list(read)}

    @staticmethod
    def _share(trainer: pl.Trainer, count: int) -> range:
        return range(trainer.global_rank, count, trainer.world_size)


def _ids_of(dataset: Samples, chosen: Iterable[int]) -> list[str]:
    """Ids of some images; read from the samples only where the dataset does not list them."""
    whole: object = dataset
    places = list(chosen)
    while isinstance(whole, (Subset, Checked)):
        places = [whole.indices[i] for i in places] if isinstance(whole, Subset) else places
        whole = whole.dataset
    names = described(whole).image_ids
    if names is not None:
        return [names[i] for i in places]
    samples = (dataset[i] for i in chosen)
    return [sample["image_id"] for sample in samples if sample is not None and "image_id" in sample]


def _rows_of(value: Any, rows: list[int]) -> Any:
    if isinstance(value, Tensor):
        return value[rows].cpu()
    return [value[row].cpu() if isinstance(value[row], Tensor) else value[row] for row in rows]
