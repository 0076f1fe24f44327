"""What every data module of this package shares: loaders, class weights, and which images are explained."""

import copy
from collections.abc import Sized
from typing import Any, Literal, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_chex.data.errors import DataError
from lightning_chex.data.images import ImageReader, read_grey
from lightning_chex.data.overview import overview
from lightning_chex.data.sample import collate
from lightning_chex.data.transforms import ImageTransform

Split = Literal["train", "val", "test"]

_SPLITS_OF_STAGE: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
    None: ("train", "val", "test"),
}


class LabelledDataset(Sized, Protocol):
    """A dataset of samples (see ``data/sample.py``) that knows its labels without reading an image."""

    labels: torch.Tensor
    """float32 (N, K) for K classes, or (N,) for severity scores; row i belongs to sample i."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read sample ``index``."""


class ChestXrayDataModule(pl.LightningDataModule):
    """Serve a chest X-ray data set in three splits.

    A child sets ``class_names``, reads and checks its files in ``check()``, and makes one split in ``build()``.

    Args:
        size: side in pixels of the square images the network gets.
        batch_size: images per batch (and per device).
        num_workers: processes that read images; 0 reads in the main process.
        augment: rotate, shift, scale and relight the training images at random. Never the others.

    Raises:
        ValueError: a size or count outside its range.
    """

    class_names: tuple[str, ...] = ()
    """Names of the K classes in the order of ``label``; empty where ``label`` is a severity score."""

    label_tables: tuple[str, ...] = ()
    """Files by which a data root is known as this data set's; empty where it is not read from disk."""

    def __init__(self, size: int = 224, batch_size: int = 32, num_workers: int = 0, augment: bool = True) -> None:
        super().__init__()
        for name, value, least in [("batch_size", batch_size, 1), ("num_workers", num_workers, 0)]:
            if value < least:
                raise ValueError(f"{name} is {value}: give at least {least}")
        self.size = size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augment = augment
        self.collate = collate
        self.read: ImageReader = read_grey
        self._plain = ImageTransform(size)
        self._augmented = ImageTransform(size, augment=augment)
        self._checked = False
        self._datasets: dict[Split, LabelledDataset] = {}

    # what a child provides

    def check(self) -> None:
        """Read and check everything all splits need; called once, before any split is built.

        Raises:
            DataError: something on disk is not as it should be.
        """

    def build(self, split: Split, transform: ImageTransform) -> LabelledDataset:
        """Make the dataset of one split, whose images go through ``transform``."""
        raise NotImplementedError

    # what everybody uses

    def setup(self, stage: str | None = None) -> None:
        """Check all files, then build the splits of a stage; a second call does nothing new.

        Args:
            stage: ``fit``, ``validate``, ``test``, ``predict`` (the test images), or None for all.

        Raises:
            DataError: bad files, or a split without images.
        """
        for split in _SPLITS_OF_STAGE[stage]:
            self.dataset(split)

    def dataset(self, split: Split) -> LabelledDataset:
        """Return the dataset of one split, built at the first call.

        Raises:
            DataError: bad files, or no image in this split.
        """
        if not self._checked:
            self.check()
            self._checked = True
        if split not in self._datasets:
            dataset = self.build(split, self._augmented if split == "train" else self._plain)
            if len(dataset) == 0:
                raise DataError(
                    f"the {split} split of {type(self).__name__} holds no image: give it more images or other fractions"
                )
            self._datasets[split] = dataset
        return self._datasets[split]

    def parts(self) -> dict[str, LabelledDataset]:
        """Return all images there are by the part they belong to, never augmented, empty parts too; after ``check``.

        Here: the three splits. A child whose data set has images beside them adds those.
        """
        return {split: self.build(split, self._plain) for split in _SPLITS_OF_STAGE[None]}

    def overview(self, num_samples: int = 12) -> dict[str, Any]:
        """Say what is found on disk, as plain data; see ``data/overview.py``.

        Args:
            num_samples: how many images to read, at least 0.

        Raises:
            DataError: something else is wrong than missing images or an empty split.
        """
        looked_at = copy.copy(self)  # whatever looking needs, this module stays as it is
        looked_at._checked, looked_at._datasets = True, {}
        return overview(looked_at, num_samples)

    def explained_dataset(self, stage: Literal["validate", "test"]) -> Dataset:
        """Return the images to explain at a stage, never augmented, the most telling order first.

        Here: the images of the validation or the test split. The first k cover the classes in turn (images of no
        class come last), or the range of the severity scores. The order is the same at every call.

        Args:
            stage: ``validate`` or ``test``.
        """
        dataset = self.dataset("val" if stage == "validate" else "test")
        return Subset(dataset, telling_order(dataset.labels))  # type: ignore[arg-type]  # a Dataset by its methods

    @property
    def pos_weight(self) -> torch.Tensor:
        """Negatives over positives of each class in the train split, float32 (K,): the weights of a weighted BCE.

        Raises:
            DataError: a class without a positive, or without a negative, has no such weight.
            ValueError: the labels are severity scores.
        """
        if not self.class_names:
            raise ValueError(f"{type(self).__name__} has severity scores, no classes, so no pos_weight")
        labels = self.dataset("train").labels
        positives = labels.sum(dim=0)
        negatives = len(labels) - positives
        for missing, counts in [("positive", positives), ("negative", negatives)]:
            names = [name for name, count in zip(self.class_names, counts.tolist(), strict=True) if count == 0]
            if names:
                raise DataError(
                    f"no {missing} image of {', '.join(names)} among the {len(labels)} training images, so pos_weight "
                    "is undefined: train on more images, or without class weights"
                )
        return (negatives / positives).float()

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches; an incomplete last batch is left out unless it is the only one."""
        dataset = self.dataset("train")
        devices = self.trainer.world_size if self.trainer else 1
        # the last batch may hold a single image, on which batch normalisation breaks
        drop_last = -(-len(dataset) // devices) > self.batch_size
        return self._loader(dataset, shuffle=True, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader:
        """Validation batches, in the order of the split."""
        return self._loader(self.dataset("val"))

    def test_dataloader(self) -> DataLoader:
        """Test batches, in the order of the split."""
        return self._loader(self.dataset("test"))

    def predict_dataloader(self) -> DataLoader:
        """The test images once more."""
        return self.test_dataloader()

    def _loader(self, dataset: LabelledDataset, shuffle: bool = False, drop_last: bool = False) -> DataLoader:
        return DataLoader(
            dataset,  # type: ignore[arg-type]  # a Dataset by its methods
            batch_size=self.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=self.collate,
            # pinned memory speeds up copies to CUDA and only costs elsewhere
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )


def telling_order(labels: torch.Tensor) -> list[int]:
    """Order samples so that any first k show the variety of all.

    Args:
        labels: (N, K) in {0, 1}, or scores (N,).

    Returns:
        A permutation of 0 to N - 1. With classes: one sample of each class in turn, then the next one, and those of
        no class last. With scores: the lowest, the highest, the middle, the quarters, and so on.
    """
    values = labels.numpy()
    if values.ndim == 1:
        by_score = np.argsort(values, kind="stable")
        return by_score[_halving_order(len(by_score))].tolist()
    # the n-th positive of a class has rank n there; a sample takes its place at its best rank over the classes
    ranks = np.where(values > 0, np.cumsum(values > 0, axis=0), np.inf)
    return np.lexsort([np.arange(len(values)), ranks.argmin(axis=1), ranks.min(axis=1)]).tolist()


def _halving_order(n: int) -> list[int]:
    """0, n - 1, then the middle, the quarters, the eighths ... of 0 to n - 1, each once."""
    order = dict.fromkeys([0, n - 1] if n else [])
    parts = 2
    while len(order) < n:
        order.update(dict.fromkeys(round(i * (n - 1) / parts) for i in range(1, parts, 2)))
        parts *= 2
    return list(order)
