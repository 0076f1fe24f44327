"""The base of the data modules: splits, loaders, and the images that are explained."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from lightning_chex.data.contract import (
    DataError,
    LabelledDataset,
    Predicted,
    Samples,
    Split,
    Stage,
    XrayDataModule,
    check_labels,
    described,
)
from lightning_chex.data.contract_checks import Checked, first_of
from lightning_chex.data.fingerprint import fingerprint
from lightning_chex.data.images.images import ImageReader, check_names, read_grey
from lightning_chex.data.images.prepared.preparing import prepare_copy
from lightning_chex.data.images.prepared.reading import open_prepared
from lightning_chex.data.images.unreadable import OnUnreadable, ReadableLoader, SkipUnreadable, collate_readable
from lightning_chex.data.labels import ShuffledLabels, pos_weight, varied_order
from lightning_chex.data.overview import overview
from lightning_chex.data.predicted import choose, share_of_few
from lightning_chex.data.sample import collate
from lightning_chex.data.splits import shared_patients
from lightning_chex.data.transforms import ImageTransform

_SPLITS_OF_STAGE: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": (),  # built by its loader: other images may have been chosen
    None: ("train", "val", "test"),
}


class ChestXrayDataModule(pl.LightningDataModule, XrayDataModule):
    """Serve a chest X-ray data set in three splits.

    A child sets ``class_names``, reads and checks its files in ``check()``, and makes one split in ``build()``. If its
    images are files, ``check()`` sets the table ``_images``, and the datasets read through ``self.read``.

    Args:
        size: side in pixels of the square images the network gets.
        batch_size: images per batch (and per device).
        num_workers: processes that read images; 0 reads in the main process.
        augment: rotate, shift and scale the training images at random, and vary their brightness and contrast.
        prepared: a copy made by ``python -m lightning_chex prepare`` to read images from, which gives the same samples.
            Some of the original files are compared with it.
        shuffle_labels: permute the labels of the training images: the network then learns nothing of findings, and its
            maps are a control for those of a trained one (``evaluate --shuffled_ckpt``).
        on_unreadable: what to do with an image that turns out unreadable during a run: ``error``, or ``skip``, see
            ``data/unreadable.py``.
        follow_links: let links in the data root lead out of it, to images on another disk for one.

    Raises:
        ValueError: a size or count outside its range, or an unknown policy.
    """

    class_names: tuple[str, ...] = ()
    score_names: tuple[str, ...] = ("severity",)

    label_tables: tuple[str, ...] = ()
    """Files by which a data root is known as this data set's; empty where it is not read from disk."""

    allow_missing: bool = False
    """Go on without images that are missing on disk."""

    def __init__(
        self,
        size: int = 224,
        batch_size: int = 32,
        num_workers: int = 0,
        augment: bool = True,
        prepared: str | None = None,
        on_unreadable: OnUnreadable = "error",
        shuffle_labels: bool = False,
        follow_links: bool = False,
    ) -> None:
        super().__init__()
        if on_unreadable not in get_args(OnUnreadable):
            raise ValueError(f"on_unreadable is {on_unreadable!r}: give 'error' or 'skip'")
        for name, value, least in [("batch_size", batch_size, 1), ("num_workers", num_workers, 0)]:
            if value < least:
                raise ValueError(f"{name} is {value}: give at least {least}")
        self.size: int = size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augment = augment
        self.prepared = prepared
        self.on_unreadable = on_unreadable
        self.shuffle_labels = shuffle_labels
        self.follow_links = follow_links
        self.collate = collate_readable if on_unreadable == "skip" else collate
        self.read: ImageReader = read_grey
        self.unreadable_images: list[str] = []
        self._images = pd.DataFrame(columns=["image_id", "path"])
        self._plain = ImageTransform(size)
        self._augmented = ImageTransform(size, augment=augment)
        self._checked = False
        self._predicted: Samples | None = None
        self._datasets: dict[Split, LabelledDataset] = {}
        self._readable: dict[str, SkipUnreadable] = {}

    def check(self) -> None:
        """Read and check what all splits need, before any is built; raises a DataError for bad files."""

    def build(self, split: Split, transform: ImageTransform) -> LabelledDataset:
        """Make the dataset of one split, whose images go through ``transform``."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Check all files, then build the splits of a stage; a second call does nothing new.

        Args:
            stage: ``fit``, ``validate``, ``test``, ``predict`` (builds none), or None for all.

        Raises:
            DataError: bad files, or a split without images.
        """
        self.look()
        for split in _SPLITS_OF_STAGE[stage]:
            self.dataset(split)

    def dataset(self, split: Split) -> LabelledDataset:
        """Return the dataset of one split, built at the first call; raises a DataError if it has no image."""
        self.look()
        if split not in self._datasets:
            dataset = self.build(split, self._augmented if split == "train" else self._plain)
            check_labels(dataset, f"{split} split", self.class_names)
            if len(dataset) == 0:
                raise DataError(
                    f"the {split} split of {type(self).__name__} holds no image: give it more images or other fractions"
                )
            dataset = ShuffledLabels(dataset) if split == "train" and self.shuffle_labels else dataset
            with isolate_rng(include_cuda=False):  # augmentation draws
                first_of(self.readable(dataset, f"{split} split", replace=split == "train"))
            for known in self._datasets:
                pair: dict[str, Sequence[str] | None] = {
                    known: described(self._datasets[known]).patient_ids,
                    split: described(dataset).patient_ids,
                }
                for warning in shared_patients(pair):
                    rank_zero_warn(f"{type(self).__name__}: {warning}")
            self._datasets[split] = dataset
        return self._datasets[split]

    def look(self) -> None:
        """Read and check what is on disk, once; see ``check``."""
        if not self._checked:
            self.check()
            check_names(self._images["image_id"])
            if self.prepared is not None:
                strict = self.on_unreadable == "error"
                self.read = open_prepared(self.prepared, self.size, self._sources(), self.read, strict)
            self._checked = True

    def fingerprint(self) -> str:
        """Hash of all an evaluation depends on; a child with boxes or masks beside the parts adds those."""
        return fingerprint(self)

    def parts(self) -> dict[str, LabelledDataset]:
        """Return the three splits, never augmented; a child with others adds those. Call ``look`` before."""
        return {split: self.build(split, self._plain) for split in _SPLITS_OF_STAGE[None]}

    def overview(self, num_samples: int = 12) -> dict[str, Any]:
        """Summarise what is on disk, see ``data/overview.py``; missing images and empty splits are no errors.

        Args:
            num_samples: how many images to read, at least 0.
        """
        fresh = copy.copy(self)  # this module stays as it is
        fresh._checked = False
        fresh._datasets = {}
        fresh._readable = {}
        fresh.allow_missing = True
        fresh.prepared = None
        return overview(fresh, num_samples)

    def explained_dataset(self, stage: Stage) -> Samples:
        """Return the images of the validation or test split in a fixed order, never augmented; see ``varied_order``."""
        split: Split = "val" if stage == "validate" else "test"
        dataset = self.dataset(split)
        return Subset(cast(Dataset, self.readable(dataset, f"{split} split")), varied_order(dataset.labels))

    def readable(self, dataset: Samples, name: str, replace: bool = False) -> Samples:
        """Check the samples of a dataset as they are read, and apply ``on_unreadable``.

        Args:
            dataset: samples of this data module.
            name: of the dataset, for messages; it identifies the record of unreadable images.
            replace: with ``skip``, give the next readable sample instead of None.
        """
        labels = getattr(dataset, "labels", None)
        needed = ("image", "image_id") if labels is None or labels.shape[1:] == (0,) else ("image", "image_id", "label")
        checked = Checked(self, dataset, name, needed)
        if self.on_unreadable == "error":
            return checked
        if name not in self._readable:
            self._readable[name] = SkipUnreadable(checked, name, replace)
        return self._readable[name]

    def prepare(self, output_dir: str | Path, size: int | None = None, workers: int | None = None) -> Path:
        """Resize all images of all splits once, into a copy for ``prepared``; see ``prepare_copy``.

        Args:
            output_dir: the folder of the copy, which is returned.
            size: longest side in pixels; None takes this module's ``size``.
            workers: processes that read and resize; None takes one per core.
        """
        self.check()
        side = self.size if size is None else size
        processes = (os.cpu_count() or 1) if workers is None else workers
        return prepare_copy(self._sources(), self.read, output_dir, side, processes, self.on_unreadable)

    def _sources(self) -> dict[str, str]:
        """Image id to path, of all splits; ``check()`` has been called."""
        if self._images.empty:
            raise DataError(f"{type(self).__name__} has no image files to prepare: give --data another data module")
        return dict(zip(self._images["image_id"], self._images["path"], strict=True))

    @property
    def decodes_sample(self) -> bool:
        """Whether the check before a run decodes some images.

        False where the run goes on without unreadable ones, or reads a prepared copy instead of the files.
        """
        return self.on_unreadable == "error" and self.prepared is None

    @property
    def pos_weight(self) -> torch.Tensor:
        """Negatives over positives of each class in the train split, float32 (K,); see ``data/labels.py``.

        Raises:
            ValueError: the labels are severity scores.
        """
        if not self.class_names:
            raise ValueError(f"{type(self).__name__} has severity scores, no classes, so no pos_weight")
        return pos_weight(self.dataset("train").labels, self.class_names)

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches; an incomplete last batch is left out unless it is the only one."""
        dataset = self.dataset("train")
        devices = self.trainer.world_size if self.trainer else 1
        # the last batch may hold a single image, on which batch normalisation breaks
        drop_last = -(-len(dataset) // devices) > self.batch_size
        return self._loader("train", shuffle=True, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader:
        """Validation batches, in the order of the split."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        """Test batches, in the order of the split."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        """The images of the last `choose_predicted`, else the test split."""
        chosen = self._predicted
        images = self.readable(self.dataset("test"), "test split") if chosen is None else chosen
        return self._loader_of(images, sampler=share_of_few(images, self.trainer))

    def choose_predicted(self, part: str = "test", **options: Any) -> Predicted:
        """Let ``predict`` see other images than the test split, never augmented; see ``choose`` for the options."""
        chosen = choose(self, part, **options)
        self._predicted = chosen.images
        return chosen

    def teardown(self, stage: str) -> None:
        """Collect the ids of skipped images from all processes in ``unreadable_images``, and warn of them."""
        if self.on_unreadable == "error":
            return
        met = [{name for dataset in self._readable.values() for name in dataset.unreadable}]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            mine = met[0]
            met = met * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(met, mine)
        self.unreadable_images = sorted(set().union(*met))
        if self.unreadable_images:
            rank_zero_warn(
                f"{len(self.unreadable_images)} unreadable images were skipped: {', '.join(self.unreadable_images)}"
            )

    def _loader(self, split: Split, shuffle: bool = False, drop_last: bool = False) -> DataLoader:
        dataset = self.readable(self.dataset(split), f"{split} split", replace=split == "train")
        return self._loader_of(dataset, shuffle, drop_last)

    def _loader_of(
        self, dataset: Samples, shuffle: bool = False, drop_last: bool = False, sampler: Sampler | None = None
    ) -> DataLoader:
        loader = DataLoader if self.on_unreadable == "error" else ReadableLoader
        return loader(
            cast(Dataset, dataset),  # any that has a length and samples will do
            batch_size=self.batch_size,
            shuffle=shuffle,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=self.collate,
            # pinned memory speeds up copies to CUDA and only costs elsewhere
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )
