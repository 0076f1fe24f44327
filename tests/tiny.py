"""The smallest LightningModule, data module and trainer with which training and explanation can meet."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lightning_chex.attribution import IBA, Attribution, Targets
from lightning_chex.data import collate

LAYER = "2"
CLASS_NAMES = ("left", "right")
SIDE = 16


class TinyTask(pl.LightningModule):
    """Two classes, or with ``class_names=()`` one score, by a network with batch normalisation and dropout.

    ``steps`` counts the training steps taken.
    """

    def __init__(self, class_names: tuple[str, ...] = CLASS_NAMES, lr: float = 0.05) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.lr = lr
        self.steps = 0
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, max(1, len(class_names))),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        output = self(batch["image"]).float()
        if self.class_names:
            return F.binary_cross_entropy_with_logits(output, batch["label"].float())
        return F.mse_loss(output[:, 0], batch["label"].float())

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.steps += 1
        return self.loss(batch)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch), batch_size=len(batch["image"]))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.log("test/loss", self.loss(batch), batch_size=len(batch["image"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class TinyImages(Dataset):
    """Noise with a bright square at the left or the right, in turn, and a box around it.

    Args:
        count: how many images.
        seed: of the noise.
        boxes: give the boxes too.
        score: the label is the image's number instead of its classes.
    """

    def __init__(self, count: int, seed: int, boxes: bool = True, score: bool = False) -> None:
        self.images = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        self.targets = torch.arange(count) % 2
        for image, target in zip(self.images, self.targets, strict=True):
            image[:, 4:10, 1 + 8 * target : 7 + 8 * target] += 2
        self.labels = torch.arange(float(count)) if score else F.one_hot(self.targets, 2).float()
        self.ids = [f"image-{seed}-{i}" for i in range(count)]
        self.boxes = boxes
        self.broken_at: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i == self.broken_at:
            raise OSError(f"image {i} cannot be read")
        sample = {"image": self.images[i], "label": self.labels[i], "image_id": self.ids[i]}
        if self.boxes:
            x = 1 + 8 * int(self.targets[i])
            # 9.51 takes the pixel centre at 9.5 in, and would not if it were rounded to bfloat16
            sample["boxes"] = torch.tensor([[x, 4, x + 6, 9.51]])
            sample["box_labels"] = self.targets[i][None]
        return sample


class TinyData(pl.LightningDataModule):
    """8 training, 10 validation and 6 test images in batches of 4; all validation or test images are offered."""

    def __init__(self, boxes: bool = True, score: bool = False, num_val: int = 10) -> None:
        super().__init__()
        self.class_names = () if score else CLASS_NAMES
        self.train = TinyImages(8, 0, boxes, score)
        self.val = TinyImages(num_val, 1, boxes, score)
        self.test = TinyImages(6, 2, boxes, score)
        self.collate = collate

    def explained_dataset(self, stage: str) -> Dataset:
        return self.val if stage == "validate" else self.test

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=4, shuffle=True, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=4, collate_fn=collate)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=4, collate_fn=collate)


class SpyIBA(IBA):
    """IBA that remembers what it was asked to explain, and the weights it found."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"layer": LAYER, "steps": 2, **options})
        self.images: list[Tensor] = []
        self.targets: list[Tensor | None] = []
        self.weights: list[dict[str, Tensor]] = []

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        self.images.append(images[targets.rows])
        self.targets.append(None if targets.values is None else targets.values.clone())
        self.weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return super().compute(model, images, targets)


def tiny_trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """Make a trainer on the CPU that says and keeps nothing unless asked to."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**defaults, **options})
