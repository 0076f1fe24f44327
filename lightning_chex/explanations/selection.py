"""Selection of the explained images, the same at every validation of a run, and their transfer to the device."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import Subset

from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import Samples, Stage, XrayDataModule, described, names_of
from lightning_chex.data.contract_checks import Checked, check_sample, first_of
from lightning_chex.explanations.processes import gathered_rows
from lightning_chex.maps import Regions, region_kind, repeated


class ShownImages:
    """The images the data module offers (``explained_dataset``); without such an offer, the first ones seen.

    Those of the first validation of a training are those of all later ones, also where its loader shuffles.

    Attributes:
        chosen: a mark of each (`image_hash`), in order; empty before the first validation. It travels with checkpoints.

    Args:
        num_images: how many over all processes; -1 for all.
        batch_size: images per batch.
    """

    def __init__(self, num_images: int, batch_size: int) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.chosen: list[str] = []
        self._kept: list[dict[str, Any]] = []
        self._names: tuple[XrayDataModule | None, frozenset[str] | None] = (None, None)

    def forget(self) -> None:
        """Drop what was kept."""
        self._kept = []

    def check(self, trainer: pl.Trainer, class_names: Sequence[str], regions: Regions, stage: str) -> Tensor | None:
        """Refuse offered images that lack what is explained, and return the first of them.

        Raises:
            MisconfigurationException: they lack it, or what their maps shall be compared with.
        """
        if stage == "predict":
            return None
        dataset = self.offered(trainer, "test" if stage == "test" else "validate")
        sample = None if dataset is None else first_of(dataset)
        if sample is None:
            return None
        check_sample(sample, ("image", "label"), "IBACallback")
        try:
            region_kind(sample, class_names, regions)
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error
        return sample["image"]

    def choose(self, trainer: pl.Trainer, marks: Sequence[str]) -> None:
        """Take the images explained now, in order, for those of the whole training; other times there is no choice."""
        if trainer.state.fn != "fit":
            return
        if self.chosen and self.offers(trainer) and any(a != b for a, b in zip(self.chosen, marks, strict=False)):
            rank_zero_warn(
                "the images explained are not those of the earlier validations of this run: a film strip shows the new "
                "ones alone. Let explained_dataset give the same images each time"
            )
            self.chosen = []
        self.chosen = self.chosen or list(marks)

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
            rows[list(self._wanted(trainer, batch, counted))] = False
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

    def _wanted(self, trainer: pl.Trainer, batch: dict[str, Any], counted: Tensor) -> dict[int, int]:
        """Rows of a passing batch that are kept, with their places among those of all processes.

        They are those chosen before; without a choice the first that count, as many as this process still needs.
        """
        rows: list[int] = counted.nonzero().flatten().tolist()
        if self.chosen and trainer.state.fn == "fit":
            taken = {place for kept in self._kept for place in kept["place"]}
            marks = {row: image_hash(batch["image"][row]) for row in rows}
            left = {mark: place for place, mark in reversed(list(enumerate(self.chosen))) if place not in taken}
            return {row: left.pop(mark) for row, mark in marks.items() if mark in left}
        if self.num_images != -1:
            rows = rows[: len(self._share(trainer, self.num_images)) - self._count]
        first = trainer.global_rank + trainer.world_size * self._count
        return {row: first + trainer.world_size * i for i, row in enumerate(rows)}

    @property
    def _count(self) -> int:
        return sum(len(kept["image"]) for kept in self._kept)

    def keep(self, trainer: pl.Trainer, batch: dict[str, Any], counted: Tensor) -> None:
        """Keep of a passing batch, in main memory, as many of the images that count as this process still needs."""
        wanted = self._wanted(trainer, batch, counted)
        if wanted:
            rows = list(wanted)
            marks = [image_hash(batch["image"][row]) for row in rows]
            kept = {key: _rows_of(value, rows) for key, value in batch.items()}
            self._refuse_repeated([*self._kept, kept])
            self._kept.append(kept | {"place": list(wanted.values()), "mark": marks})

    @staticmethod
    def _refuse_repeated(batches: Sequence[dict[str, Any]]) -> None:
        names = [str(name) for batch in batches for name in names_of(batch.get("image_id", []))]
        name = repeated(names)
        if name is not None:
            raise MisconfigurationException(
                f"two of the images to explain have the image_id {name!r}, which names their pictures and rows: give "
                "each image an id of its own, or none, for numbers"
            )

    def planned(self, trainer: pl.Trainer, stage: Stage) -> dict[int, str]:
        """Places of all images to explain, in order, with marks where these are known before a sample is read.

        Every process must call this.
        """
        dataset = self.offered(trainer, stage)
        if dataset is not None:
            return dict.fromkeys(self._chosen(dataset), "")
        own = [own for kept in self._kept for own in zip(kept["place"], kept["mark"], strict=True)]
        return dict(sorted(gathered_rows(own)))

    def batches(self, trainer: pl.Trainer, stage: Stage, in_order: bool = False) -> Iterator[dict[str, Any]]:
        """Yield this process's share, on its device; shares differ in size, so nothing collective may happen here.

        Beside what the data give, a batch holds ``place``, where each image stands among those of all processes, and
        ``mark``, see `image_hash`. Images offered come in their order; others as they passed, or ``in_order``.
        """
        dataset = self.offered(trainer, stage)
        kept = self._kept_in_order() if in_order else iter(self._kept)
        for batch in kept if dataset is None else self._read(trainer, dataset):
            if dataset is None:  # the module has changed these already, on their way to the device
                moved = move_data_to_device(batch, trainer.strategy.root_device)
            else:
                moved = trainer.strategy.batch_to_device(batch)
            # the image alone: boxes and scores would be rounded
            yield moved | {"image": trainer.precision_plugin.convert_input(moved["image"])}

    def _kept_in_order(self) -> Iterator[dict[str, Any]]:
        """By place and ``batch_size``; rows of different batches, whose shapes may differ, stay apart."""
        places = ((place, i, row) for i, kept in enumerate(self._kept) for row, place in enumerate(kept["place"]))
        for i, run in groupby(sorted(places), key=itemgetter(1)):
            rows = [row for *_, row in run]
            for start in range(0, len(rows), self.batch_size):
                some = rows[start : start + self.batch_size]
                yield {key: _rows_of(value, some) for key, value in self._kept[i].items()}

    def _read(self, trainer: pl.Trainer, dataset: Samples) -> Iterator[dict[str, Any]]:
        collate = data_of(trainer).collate
        share = self._share(trainer, len(self._chosen(dataset)))
        for start in range(0, len(share), self.batch_size):
            samples = {place: dataset[place] for place in share[start : start + self.batch_size]}
            # None is unreadable, and the data module leaves such out
            read = {place: sample for place, sample in samples.items() if sample is not None}
            if read:
                marks = [image_hash(sample["image"]) for sample in read.values()]
                yield collate(list(read.values())) | {"place": list(read), "mark": marks}

    @staticmethod
    def _share(trainer: pl.Trainer, count: int) -> range:
        return range(trainer.global_rank, count, trainer.world_size)


def image_hash(image: Tensor) -> str:
    """Stand for an image (C, H, W) by a hash of its pixels, of every n-th row and column.

    Checkpoints hold it: from a name, or its hash, a person could be found.
    """
    step = [max(1, side // 32) for side in image.shape[-2:]]
    pixels = image[..., :: step[0], :: step[1]].float().cpu().contiguous()
    return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=8).hexdigest()


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
