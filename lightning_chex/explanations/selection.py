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


class ImageSelection:
    """The explained images: those the data module offers (``explained_dataset``), else the first ones seen.

    The images of the first validation of a training are explained at all later ones too, also if its loader shuffles.

    Args:
        num_images: number over all processes; -1 for all.
        batch_size: images per batch.

    Attributes:
        chosen: hash of each image (`image_hash`), in order; empty before the first validation. Part of checkpoints.
    """

    def __init__(self, num_images: int, batch_size: int) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.chosen: list[str] = []
        self._kept: list[dict[str, Any]] = []
        # the names offered by a data module, and that data module: looked up again only for another one
        self._names_of: XrayDataModule | None = None
        self._names: frozenset[str] | None = None

    def forget(self) -> None:
        """Drop the images kept from passing batches."""
        self._kept = []

    def check_offered(
        self, trainer: pl.Trainer, class_names: Sequence[str], regions: Regions, stage: str
    ) -> Tensor | None:
        """Check the first offered image, and return it.

        Raises:
            MisconfigurationException: it has no image or label, or not the regions its maps are to be compared with.
        """
        if stage == "predict":
            return None
        dataset = self.offered(trainer, "test" if stage == "test" else "validate")
        if dataset is None:
            return None
        sample = first_of(dataset)
        if sample is None:
            return None
        # Checked has checked the values of the sample; whether it has a label only matters here
        check_sample(sample, ("image", "label"), "IBACallback")
        try:
            region_kind(sample, class_names, regions)
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error
        return sample["image"]

    def fix(self, trainer: pl.Trainer, hashes: Sequence[str]) -> None:
        """Fix the explained images of a training on first use, in this order; outside of a training nothing is fixed.

        Args:
            trainer: of the run.
            hashes: of the images explained now, see `image_hash`.
        """
        if trainer.state.fn != "fit":
            return
        # a time budget may have cut the list short: only the common start is compared
        differ = any(before != now for before, now in zip(self.chosen, hashes, strict=False))
        if differ and self.has_offered_images(trainer):
            rank_zero_warn(
                "the images explained are not those of the earlier validations of this run: a film strip shows the new "
                "ones alone. explained_dataset should return the same images each time"
            )
            self.chosen = []
        self.chosen = self.chosen or list(hashes)

    @staticmethod
    def offered(trainer: pl.Trainer, stage: Stage) -> Samples | None:
        """Return the dataset the data module offers, None if it offers none."""
        dataset = data_of(trainer).explained_dataset(stage)
        if dataset is None:
            return None
        return Checked(data_of(trainer), dataset, f"images explained at {stage}")

    def has_offered_images(self, trainer: pl.Trainer) -> bool:
        """Whether the data module offers images at validation; looked up once for a data module."""
        return self._offered_names(trainer) is not None

    def unexplained(self, trainer: pl.Trainer, batch: dict[str, Any], counted: Tensor) -> Tensor:
        """Images of a validation batch that will not be explained, from which statistics may be taken.

        Args:
            trainer: of the validation.
            batch: has an ``image`` (B, C, H, W).
            counted: bool (B,), False for what a distributed sampler repeats.

        Returns:
            bool (B,). All True where images are offered and the batch has no ``image_id``.
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
        if self._names_of != data:
            dataset = self.offered(trainer, "validate")
            self._names_of = data
            self._names = None
            if dataset is not None:
                self._names = frozenset(_ids_of(dataset, self._explained_indices(dataset)))
        return self._names

    def _explained_indices(self, dataset: Samples) -> range:
        if self.num_images == -1:
            return range(len(dataset))
        return range(min(self.num_images, len(dataset)))

    def _wanted(self, trainer: pl.Trainer, batch: dict[str, Any], counted: Tensor) -> dict[int, int]:
        """Rows of the batch to keep, with their global positions.

        These are the images chosen before; without a choice the first counted ones that this process still needs.
        """
        rows: list[int] = counted.nonzero().flatten().tolist()
        if self.chosen and trainer.state.fn == "fit":
            taken = {place for kept in self._kept for place in kept["place"]}
            marks = {row: image_hash(batch["image"][row]) for row in rows}
            missing: dict[str, int] = {}
            for place, mark in enumerate(self.chosen):
                if place not in taken:
                    missing.setdefault(mark, place)  # of equal images the first
            # popped, so that an image equal to one kept already is not kept for the same position
            return {row: missing.pop(mark) for row, mark in marks.items() if mark in missing}
        if self.num_images != -1:
            rows = rows[: len(self._share(trainer, self.num_images)) - self._count]
        first = trainer.global_rank + trainer.world_size * self._count
        return {row: first + trainer.world_size * i for i, row in enumerate(rows)}

    @property
    def _count(self) -> int:
        return sum(len(kept["image"]) for kept in self._kept)

    def keep(self, trainer: pl.Trainer, batch: dict[str, Any], counted: Tensor) -> None:
        """Keep in main memory as many of the counted images of a passing batch as this process still needs."""
        wanted = self._wanted(trainer, batch, counted)
        if not wanted:
            return
        rows = list(wanted)
        hashes = [image_hash(batch["image"][row]) for row in rows]
        kept = {key: _rows_of(value, rows) for key, value in batch.items()}
        self._refuse_repeated([*self._kept, kept])
        self._kept.append(kept | {"place": list(wanted.values()), "mark": hashes})

    @staticmethod
    def _refuse_repeated(batches: Sequence[dict[str, Any]]) -> None:
        names = [str(name) for batch in batches for name in names_of(batch.get("image_id", []))]
        name = repeated(names)
        if name is not None:
            raise MisconfigurationException(
                f"two of the images to explain have the image_id {name!r}, which names their pictures and rows: give "
                "each image a unique id, or none, to number them"
            )

    def planned(self, trainer: pl.Trainer, stage: Stage) -> dict[int, str]:
        """Positions of all images to explain, in order, with their hashes where these are known before reading.

        Every process must call this.
        """
        dataset = self.offered(trainer, stage)
        if dataset is not None:
            return dict.fromkeys(self._explained_indices(dataset), "")
        kept_here: list[tuple[int, str]] = []
        for kept in self._kept:
            kept_here += zip(kept["place"], kept["mark"], strict=True)
        return dict(sorted(gathered_rows(kept_here)))

    def batches(self, trainer: pl.Trainer, stage: Stage, in_order: bool = False) -> Iterator[dict[str, Any]]:
        """Yield this process's share on its device.

        Shares of processes differ in size, so no collective call may happen here. Beside the entries of the data, a
        batch holds ``place``, the position of each image among those of all processes, and ``mark``, see `image_hash`.

        Args:
            trainer: of the run.
            stage: of the images.
            in_order: by position; otherwise images kept from passing batches come as they passed. Offered images are
                always in order.
        """
        dataset = self.offered(trainer, stage)
        if dataset is not None:
            for batch in self._read(trainer, dataset):
                yield _with_converted_image(trainer, trainer.strategy.batch_to_device(batch))
            return
        for batch in self._kept_in_order() if in_order else self._kept:
            # not batch_to_device: the transfer hooks of the module have already run on these batches
            yield _with_converted_image(trainer, move_data_to_device(batch, trainer.strategy.root_device))

    def _kept_in_order(self) -> Iterator[dict[str, Any]]:
        """Batches of up to ``batch_size`` by position; rows of different batches may differ in shape and stay apart."""
        positions: list[tuple[int, int, int]] = []  # position, number of the kept batch, row in it
        for number, kept in enumerate(self._kept):
            positions += [(place, number, row) for row, place in enumerate(kept["place"])]
        for number, run in groupby(sorted(positions), key=itemgetter(1)):
            rows = [row for _, _, row in run]
            for start in range(0, len(rows), self.batch_size):
                batch_rows = rows[start : start + self.batch_size]
                yield {key: _rows_of(value, batch_rows) for key, value in self._kept[number].items()}

    def _read(self, trainer: pl.Trainer, dataset: Samples) -> Iterator[dict[str, Any]]:
        collate = data_of(trainer).collate
        share = self._share(trainer, len(self._explained_indices(dataset)))
        for start in range(0, len(share), self.batch_size):
            read: dict[int, Any] = {}
            for place in share[start : start + self.batch_size]:
                sample = dataset[place]
                if sample is not None:  # None stands for an unreadable image, which data modules leave out
                    read[place] = sample
            if read:
                marks = [image_hash(sample["image"]) for sample in read.values()]
                yield collate(list(read.values())) | {"place": list(read), "mark": marks}

    @staticmethod
    def _share(trainer: pl.Trainer, count: int) -> range:
        return range(trainer.global_rank, count, trainer.world_size)


def image_hash(image: Tensor) -> str:
    """Hash of a subsampled image (C, H, W), of about 32 x 32 pixels.

    Checkpoints hold this hash and not the image's id, nor a hash of it, from which a person could be identified.
    """
    height, width = image.shape[-2:]
    row_step = max(1, height // 32)
    column_step = max(1, width // 32)
    pixels = image[..., ::row_step, ::column_step].float().cpu().contiguous()
    return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=8).hexdigest()


def _ids_of(dataset: Samples, chosen: Iterable[int]) -> list[str]:
    """Ids of some images; read from the samples only where the dataset does not list them."""
    base: object = dataset
    base_indices = list(chosen)
    while isinstance(base, (Subset, Checked)):
        if isinstance(base, Subset):
            base_indices = [base.indices[i] for i in base_indices]
        base = base.dataset
    names = described(base).image_ids
    if names is not None:
        return [names[i] for i in base_indices]
    samples = (dataset[i] for i in chosen)
    return [sample["image_id"] for sample in samples if sample is not None and "image_id" in sample]


def _with_converted_image(trainer: pl.Trainer, batch: dict[str, Any]) -> dict[str, Any]:
    """Convert the image to the precision of the run; converting the whole batch would round boxes and scores."""
    return batch | {"image": trainer.precision_plugin.convert_input(batch["image"])}


def _rows_of(value: Any, rows: list[int]) -> Any:
    if isinstance(value, Tensor):
        return value[rows].cpu()
    return [value[row].cpu() if isinstance(value[row], Tensor) else value[row] for row in rows]
