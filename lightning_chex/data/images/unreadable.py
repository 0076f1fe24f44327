"""Handling of images that passed the checks but turn out unreadable during a run.

``error``: the run ends with the error of that image. ``skip``: the run goes on without it.

- Training: the next readable image of the split replaces it (after the last comes the first), so batches keep their
  size, whatever the number of workers.
- Elsewhere it is left out of its batch, and an empty batch is left out too: no image is measured twice.
- It is warned of once, not tried again in this run, and listed at the end.
- More than ``MAX_SHARE`` of a split (but one image always) are an error: that is a failing disk, not a bad file. Each
  process of a distributed run counts its own.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_chex.data.contract import DataError, Samples, described
from lightning_chex.data.images.images import first_few
from lightning_chex.data.sample import collate

OnUnreadable = Literal["error", "skip"]

MAX_SHARE = 0.01
"""Largest share of unreadable images in a split with ``skip``."""


class SkipUnreadable(Dataset):
    """A dataset without its unreadable images.

    Args:
        dataset: whose samples are read; it raises a ``DataError`` for an image it cannot read.
        name: of the split, for messages.
        replace: give the next readable sample instead of None.
    """

    def __init__(self, dataset: Samples, name: str, replace: bool) -> None:
        self.dataset = dataset
        self.name = name
        self.replace = replace
        # in shared memory, known to all workers and the main process
        self._met = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        """Read one sample, or its replacement; None if it is unreadable and not replaced.

        Raises:
            DataError: too many images of the dataset are unreadable.
        """
        for candidate in chain([index], self._after(index)):
            if self._met[candidate]:
                continue
            try:
                return self.dataset[candidate]
            except DataError as error:
                self._note(candidate, error)
        return None

    @property
    def image_ids(self) -> Sequence[str] | None:
        """Ids of all images, unreadable ones too; None where the dataset does not list them."""
        return described(self.dataset).image_ids

    @property
    def unreadable(self) -> list[str]:
        """Ids of the unreadable images met so far, by all workers of this process."""
        names = self.image_ids
        met = self._met.nonzero().flatten().tolist()
        return [f"number {index} of the {self.name}" if names is None else names[index] for index in met]

    def _after(self, index: int) -> Iterator[int]:
        if self.replace:
            yield from ((index + step) % len(self) for step in range(1, len(self)))

    def _note(self, index: int, error: DataError) -> None:
        self._met[index] = True
        count = int(self._met.sum())
        warnings.warn(f"unreadable image {count} of the {self.name}, skipped: {error}", stacklevel=2)
        check_share(count, len(self), self.name, first_few(self.unreadable))


class ReadableLoader(DataLoader):
    """A DataLoader without empty batches; ``positions`` in a batch count over all samples, unreadable ones too."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator is an iterator of batches too
        for number, batch in enumerate(super().__iter__()):
            if batch is not None:
                start = number * getattr(self.batch_sampler, "batch_size", 0)
                yield {**batch, "positions": [start + position for position in batch["positions"]]}


def collate_readable(samples: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Join the readable samples, see ``collate``, with their ``positions``; None if there are none."""
    readable = [(position, sample) for position, sample in enumerate(samples) if sample is not None]
    if not readable:
        return None
    return {**collate([sample for _, sample in readable]), "positions": [position for position, _ in readable]}


def check_share(unreadable: int, images: int, name: str, examples: str) -> None:
    """Raise a DataError if unreadable images are more than one and more than ``MAX_SHARE``, or all."""
    most = max(1, math.floor(MAX_SHARE * images))
    if unreadable > most or unreadable == images > 0:
        raise DataError(
            f"{unreadable} of the {images} images of the {name} cannot be read: {examples}. on_unreadable: skip goes "
            f"on without {MAX_SHARE:.0%} of them ({most}) at the most: check the disk, or replace the files"
        )
