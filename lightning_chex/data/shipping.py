"""The way of images from a worker to the network: one grey byte a pixel, float32 in three channels on the device.

An image is a grey plane of 50 KB at 224 pixels; as the network gets it, it has 602 KB. Workers pass the former on, and
`Planes` becomes the latter, with the same values to the last bit, when Lightning moves a batch to the device. What a
worker cannot show to be such a plane, an image of a data set of one's own or one changed since, goes as it is.
"""

from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_chex.data import sample
from lightning_chex.data.transforms import normalise, plane_of
from lightning_chex.data.unreadable import collate_readable

Collate = Callable[[list[Any]], Any]

DEVICES = frozenset({"cpu", "cuda", "mps"})
"""Types of device to which Lightning moves a batch as a whole."""


class Planes:
    """A batch of images (B, 3, H, W) as their grey values; ``to`` gives the images.

    Args:
        grey: uint8 (B, H, W).
        dtype: of the images.
    """

    def __init__(self, grey: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.grey, self.dtype = grey, dtype

    def __len__(self) -> int:
        return len(self.grey)

    @property
    def shape(self) -> torch.Size:
        """Of the images, (B, 3, H, W)."""
        batch, height, width = self.grey.shape
        return torch.Size((batch, 3, height, width))

    def to(self, device: torch.device | str, **options: Any) -> Tensor:
        """Return the images on a device, (B, 3, H, W): there alone they take up their full size."""
        device = torch.device(device)
        if device.type == "cpu":
            return normalise(self.grey[:, None]).to(self.dtype)
        return self.looked_up(device)

    def looked_up(self, device: torch.device) -> Tensor:
        """The same by a table, for other devices, whose division may differ in the last bit."""
        places = self.grey.to(device, non_blocking=self.grey.is_pinned()).int()
        return torch.stack([values[places] for values in _table(device, self.dtype)], dim=1)

    def pin_memory(self) -> "Planes":
        """Return the same in pinned memory; the DataLoader calls it."""
        return Planes(self.grey.pin_memory(), self.dtype)


class Packing:
    """A ``collate_fn`` that joins images to `Planes` where it can, and everything else as ``collate`` does.

    Args:
        collate: ours, or the one that leaves out unreadable samples, None among them.
        dtype: of the images on the device.
    """

    def __init__(self, collate: Collate, dtype: torch.dtype = torch.float32) -> None:
        self.collate, self.dtype = collate, dtype

    def __call__(self, samples: list[Any]) -> Any:
        """Join samples to a batch."""
        grey: list[Any] = []
        for one in samples:
            plane = None if one is None else plane_of(one["image"])
            if one is not None and plane is None:
                return self.collate(samples)
            grey.append(one and {**one, "image": plane})
        batch = self.collate(grey)
        return batch if batch is None else {**batch, "image": Planes(batch["image"], self.dtype)}


def packing(collate: Collate, trainer: pl.Trainer | None) -> Collate:
    """Return what joins samples for a trainer: `Packing` where Lightning itself moves a batch, else ``collate``.

    Without a trainer batches are those of ``collate``, and so they are for a model or a data module that sees them
    before they are moved, or with a way of joining of one's own.
    """
    if collate not in (sample.collate, collate_readable) or trainer is None or trainer.lightning_module is None:
        return collate
    model, data = trainer.lightning_module, getattr(trainer, "datamodule", None)
    hooks = ("on_before_batch_transfer", "transfer_batch_to_device")
    steps = [getattr(model, f"{name}_step", None) for name in ("training", "validation", "test", "predict")]
    if (
        trainer.strategy.root_device.type not in DEVICES
        or any(is_overridden(hook, part) for hook in hooks for part in (model, data) if part is not None)
        or any(step is not None and "dataloader_iter" in signature(step).parameters for step in steps)
    ):
        return collate
    return Packing(collate, trainer.precision_plugin.convert_input(torch.zeros(1)).dtype)


@lru_cache(maxsize=16)
def _table(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The three channels of all 256 grey values, (3, 256)."""
    every = torch.from_numpy(np.arange(256, dtype=np.uint8))
    with torch.inference_mode(False):  # a training may use what a validation has made
        return normalise(every[None])[:, 0].to(device=device, dtype=dtype)
