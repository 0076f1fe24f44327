"""What every data module of this package shares: loaders, class weights, and which images are explained."""

import copy
import hashlib
import os
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from lightning_chex.data.class_weights import pos_weight
from lightning_chex.data.contract import LabelledDataset, Samples, Split, Stage, check_labels, described
from lightning_chex.data.errors import DataError
from lightning_chex.data.files.images import ImageReader, check_names, first_few, read_grey
from lightning_chex.data.order import telling_order
from lightning_chex.data.overview import overview
from lightning_chex.data.predicted import Predicted, choose, share_of_few
from lightning_chex.data.prepared.preparing import prepare_copy
from lightning_chex.data.prepared.reading import open_prepared
from lightning_chex.data.sample import collate
from lightning_chex.data.shuffled import ShuffledLabels
from lightning_chex.data.transforms import ImageTransform
from lightning_chex.data.unreadable import OnUnreadable, ReadableLoader, SkipUnreadable, collate_readable

_SPLITS_OF_STAGE: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": (),  # built when its loader is asked for: other images may have been chosen
    None: ("train", "val", "test"),
}


class ChestXrayDataModule(pl.LightningDataModule):
    """Serve a chest X-ray data set in three splits.

    A child sets ``class_names``, reads and checks its files in ``check()``, and makes one split in ``build()``. If its
    images are files, ``check()`` sets the table ``_images``, and the datasets read through ``self.read``.

    Args:
        size: side in pixels of the square images the network gets.
        batch_size: images per batch (and per device).
        num_workers: processes that read images; 0 reads in the main process.
        augment: rotate, shift, scale and relight the training images at random. Never the others.
        prepared: a copy made by ``python -m lightning_chex prepare`` to read images from, to the same samples as from
            their files. The files are only looked at, to make sure that the copy is one of them.
        shuffle_labels: give the training images each other's labels: what a network then learns has nothing to do with
            findings, and maps that explain findings must differ from its maps (``evaluate --shuffled_ckpt``).
        on_unreadable: what to do with an image that cannot be read in the middle of a run: ``error``, or ``skip``, see
            ``data/unreadable.py``.

    Raises:
        ValueError: a size or count outside its range, or an unknown policy.
    """

    class_names: tuple[str, ...] = ()
    """Names of the K classes in the order of ``label``; empty where ``label`` is a severity score."""

    label_tables: tuple[str, ...] = ()
    """Files by which a data root is known as this data set's; empty where it is not read from disk."""

    score_names: tuple[str, ...] = ("severity",)
    """Names of the scores in the order of ``label``; several where it is a vector of them. Of no use with classes."""

    root: str | None = None
    """The folder the images come from; None where they are not read from disk."""

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
    ) -> None:
        super().__init__()
        if on_unreadable not in get_args(OnUnreadable):
            raise ValueError(f"on_unreadable is {on_unreadable!r}: give 'error' or 'skip'")
        for name, value, least in [("batch_size", batch_size, 1), ("num_workers", num_workers, 0)]:
            if value < least:
                raise ValueError(f"{name} is {value}: give at least {least}")
        self.size = size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augment = augment
        self.prepared = prepared
        self.on_unreadable = on_unreadable
        self.shuffle_labels = shuffle_labels
        self.collate = collate_readable if on_unreadable == "skip" else collate
        self.read: ImageReader = read_grey
        self.unreadable_images: list[str] = []
        self._images = pd.DataFrame(columns=["image_id", "path"])
        self._plain = ImageTransform(size)
        self._augmented = ImageTransform(size, augment=augment)
        self._checked = False
        self._predicted: Predicted | None = None
        self._datasets: dict[Split, LabelledDataset] = {}
        self._readable: dict[str, SkipUnreadable] = {}

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
            stage: ``fit``, ``validate``, ``test``, ``predict`` (builds none), or None for all.

        Raises:
            DataError: bad files, or a split without images.
        """
        self.look()
        for split in _SPLITS_OF_STAGE[stage]:
            self.dataset(split)

    def dataset(self, split: Split) -> LabelledDataset:
        """Return the dataset of one split, built at the first call.

        Raises:
            DataError: bad files, or no image in this split.
        """
        self.look()
        if split not in self._datasets:
            dataset = self.build(split, self._augmented if split == "train" else self._plain)
            check_labels(dataset, f"{split} split")
            if len(dataset) == 0:
                raise DataError(
                    f"the {split} split of {type(self).__name__} holds no image: give it more images or other fractions"
                )
            self._datasets[split] = ShuffledLabels(dataset) if split == "train" and self.shuffle_labels else dataset
        return self._datasets[split]

    def look(self) -> None:
        """Read and check what is on disk, once; nothing is built.

        Raises:
            DataError: something is not as it should be.
        """
        if not self._checked:
            self.check()
            check_names(self._images["image_id"])
            if self.prepared is not None:
                self.read = self._open_prepared(self.prepared)
            self._checked = True

    def fingerprint(self) -> str:
        """Hash of what all parts hold: labels, zone scores, names and patients in order, and the sizes of the files.

        Two copies with one fingerprint give the same evaluation; a changed table, a missing image or another resolution
        changes it. The pixels of the files are not read. A child that has boxes or masks beside the parts adds those.
        """
        self.look()
        digest = hashlib.sha256()
        for name, part in sorted(self.parts().items()):
            digest.update(f"{name} {len(part)} {self.size}\n".encode())
            known = described(part)
            for values in (part.labels, torch.zeros(0) if known.zones is None else known.zones):
                digest.update(values.contiguous().numpy().tobytes())
            for names in (known.image_ids, known.patient_ids):
                digest.update("\n".join(names or ()).encode())
            sizes = [os.path.getsize(path) for path in known.paths or ()]
            digest.update(str(sizes).encode())
        return digest.hexdigest()

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
        looked_at._checked, looked_at._datasets, looked_at._readable = False, {}, {}
        looked_at.allow_missing, looked_at.prepared = True, None
        return overview(looked_at, num_samples, type(self).__name__, self.rater_disagreement())

    def rater_disagreement(self) -> dict[str, float] | None:
        """Say how far raters differ; None where there is one."""
        return None

    def explained_dataset(self, stage: Stage) -> Samples:
        """Return the images to explain at a stage, never augmented, the most telling order first.

        Here: the images of the validation or the test split. The first k cover the classes in turn (images of no
        class come last), or the range of the severity scores. The order is the same at every call.

        Args:
            stage: ``validate`` or ``test``.
        """
        split: Split = "val" if stage == "validate" else "test"
        dataset = self.dataset(split)
        return Subset(cast(Dataset, self.readable(dataset, f"{split} split")), telling_order(dataset.labels))

    def readable(self, dataset: Samples, name: str, replace: bool = False) -> Samples:
        """Return a dataset as ``on_unreadable`` wants it: with ``skip``, less its unreadable images.

        Args:
            dataset: samples of this data module.
            name: what to call it in messages; what is known to be unreadable is kept under this name.
            replace: give the next readable sample instead of an unreadable one, which else becomes None.
        """
        if self.on_unreadable == "error":
            return dataset
        if name not in self._readable:
            self._readable[name] = SkipUnreadable(dataset, name, replace)
        return self._readable[name]

    def prepare(self, output_dir: str | Path, size: int | None = None, workers: int | None = None) -> Path:
        """Resize all images of all splits once, into a copy for ``prepared``; see ``data/prepared/preparing.py``.

        Args:
            output_dir: where the copy shall be.
            size: longest side in pixels; None takes this module's ``size``.
            workers: processes that read and resize; None takes one per core.

        Returns:
            The folder of the copy.

        Raises:
            DataError: bad files or arguments, a data set without files, or a place that cannot be written to.
        """
        self.check()
        return prepare_copy(
            self._sources(),
            self.read,
            output_dir,
            size=self.size if size is None else size,
            workers=(os.cpu_count() or 1) if workers is None else workers,
            on_unreadable=self.on_unreadable,
        )

    def _sources(self) -> dict[str, str]:
        """Image id to path, of all splits; ``check()`` has been called."""
        if self._images.empty:
            raise DataError(f"{type(self).__name__} has no image files to prepare: give --data another data module")
        return dict(zip(self._images["image_id"], self._images["path"], strict=True))

    def _open_prepared(self, folder: str) -> ImageReader:
        reader = open_prepared(folder, self.size, self._sources(), self.read)
        if reader.unreadable and self.on_unreadable == "error":
            raise DataError(
                f"{len(reader.unreadable)} images could not be read when {folder} was prepared: "
                f"{first_few(reader.unreadable)}; prepare anew with intact copies, or set on_unreadable: skip"
            )
        return reader

    @property
    def pos_weight(self) -> torch.Tensor:
        """Negatives over positives of each class in the train split, float32 (K,): the weights of a weighted BCE.

        Raises:
            DataError: a class without a positive, or without a negative, has no such weight.
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
        """The test images once more, or what `choose_predicted` has chosen."""
        chosen = self._predicted
        images = self.readable(self.dataset("test"), "test split") if chosen is None else chosen.images
        return self._loader_of(images, sampler=share_of_few(images, self.trainer))

    def choose_predicted(self, part: str = "test", **options: Any) -> Predicted:
        """Let ``predict`` see other images than those of the test split, never augmented; see ``data/predicted.py``.

        Args:
            part: the name of one of `parts`, or ``all``.
            options: ``limit``, ``only_positive``, ``finished``; see ``choose``.

        Returns:
            What was chosen.

        Raises:
            DataError: bad files, no such part, or no image in it.
        """
        self.look()
        self._predicted = choose(self, part, **options)
        return self._predicted

    def teardown(self, stage: str) -> None:
        """Say which images were skipped as unreadable, by all processes together: ``unreadable_images``, their ids."""
        if self.on_unreadable == "error":
            return
        met = [{name for dataset in self._readable.values() for name in dataset.unreadable}]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            mine, met = met[0], met * torch.distributed.get_world_size()
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
