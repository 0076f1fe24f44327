"""Data sets of one's own, as short as the contract allows: what a user would write, no more."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from lightning_chex.data import ChestXrayDataModule, ImageTransform


class Squares(Dataset):
    """A bright square at the left, at the right, or nowhere; nothing but ``labels`` and the four promised keys."""

    def __init__(self, split: str, labels: torch.Tensor, transform: ImageTransform) -> None:
        self.split, self.labels, self.transform = split, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        pixels = np.random.default_rng(i).integers(0, 60, (40, 40), dtype=np.uint8)
        pixels[12:28, 4 + 16 * (i % 2) : 20 + 16 * (i % 2)] += np.uint8(100 * (i % 3 > 0))
        name = f"{self.split}-{i}"
        return self.sample(i, pixels) | {"label": self.labels[i], "image_id": name, "patient_id": f"p-{name}"}

    def sample(self, i: int, pixels: np.ndarray) -> dict[str, Any]:
        return {"image": self.transform(pixels)["image"]}


class SquaresData(ChestXrayDataModule):
    class_names = ("left", "right")
    dataset_class = Squares

    def build(self, split: str, transform: ImageTransform) -> Squares:
        present, side = torch.arange(12) % 3 > 0, torch.arange(12) % 2
        labels = torch.stack([present & (side == k) for k in (0, 1)], 1).float()
        return self.dataset_class(split, labels, transform)


class SeverityData(ChestXrayDataModule):
    dataset_class = Squares

    def build(self, split: str, transform: ImageTransform) -> Squares:
        return self.dataset_class(split, (torch.arange(12) % 3).float(), transform)


class Boxed(Squares):
    def sample(self, i: int, pixels: np.ndarray) -> dict[str, Any]:
        side = i % 2
        boxes = np.array([[4 + 16 * side, 12, 20 + 16 * side, 28]])[: int(self.labels[i].sum())]
        return self.transform(pixels, boxes, np.full(len(boxes), side))


class Masked(Squares):
    def sample(self, i: int, pixels: np.ndarray) -> dict[str, Any]:
        masks = np.stack([pixels > 90, pixels > 90])
        sample = self.transform(pixels, masks={"finding_masks": masks, "lung_mask": masks})
        return {key: sample[key] for key in ("image", "finding_masks", "lung_mask")}


class Zoned(Squares):
    def sample(self, i: int, pixels: np.ndarray) -> dict[str, Any]:
        return super().sample(i, pixels) | {"zones": torch.tensor([self.labels[i], 0, 0, 0, 0, 0])}


class BoxedData(SquaresData):
    dataset_class = Boxed


class MaskedData(SquaresData):
    dataset_class = Masked


class ZonedData(SeverityData):
    dataset_class = Zoned


class ForeignData(pl.LightningDataModule):
    """No child of ``ChestXrayDataModule``: Lightning's loaders and the names of the classes, nothing else."""

    class_names = ("left", "right")

    def __init__(self, size: int = 64, batch_size: int = 4, num_workers: int = 0) -> None:
        super().__init__()
        self.transform, self.rows = ImageTransform(size), batch_size

    def loader(self, split: str) -> DataLoader:
        return DataLoader(SquaresData().build(split, self.transform), batch_size=self.rows)

    def train_dataloader(self) -> DataLoader:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self.loader("test")


class OfferingData(ForeignData):
    """The same with the images to explain."""

    collate = staticmethod(default_collate)

    def explained_dataset(self, stage: str) -> Dataset:
        return self.loader("val" if stage == "validate" else "test").dataset


class NamelessData(ForeignData):
    """The same without names of its classes."""

    class_names = None
