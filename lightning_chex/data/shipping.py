"""The way of images from a worker to the device: one grey byte a pixel, a twelfth of what the network gets.

An image is a grey plane of 50 KB at 224 pixels; as float32 in three channels it has 602 KB. Workers pass the former on,
and when Lightning moves a batch to a GPU the latter is made of it there, the same to the last bit. Whoever looks at a
batch before sees images all the same: they are made at first use. What a worker cannot show to be a grey plane, an
image of a data set of one's own or one changed since, goes as it is; so does all that is joined in a way of one's own.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_chex.data.sample import collate
from lightning_chex.data.transforms import normalise, plane_of

Collate = Callable[[list[Any]], Any]


class Planes:
    """The grey values of a batch of images, uint8 (B, H, W), on their way from a worker."""

    def __init__(self, grey: Tensor) -> None:
        self.grey = grey

    def pin_memory(self) -> "Planes":
        """Return the same in pinned memory; the DataLoader calls it."""
        return Planes(self.grey.pin_memory())


class GreyImages(Tensor):
    """Images (B, 3, H, W), float32, that are still their grey values until something is done with them.

    Moved to another device they are made there. Whatever else is done with them, in place too, is done with images made
    here, once; its results are tensors as any other.
    """

    _grey: Tensor
    _made: Tensor | None

    @staticmethod
    def of(grey: Tensor) -> "GreyImages":
        """Stand for the images of grey values, uint8 (B, H, W)."""
        images = grey.as_subclass(GreyImages)
        images._grey, images._made = grey, None
        return images

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do with the images whatever torch is asked to do with this."""
        return func(*_made_of(args), **_made_of(kwargs or {}))

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]  # known without making them
        """Of the images, (B, 3, H, W)."""
        batch, height, width = self._grey.shape
        return torch.Size((batch, 3, height, width))

    def __len__(self) -> int:
        return len(self._grey)

    def made(self) -> Tensor:
        """Return the images; the same tensor at every call."""
        if self._made is None:
            self._made = normalise(self._grey[:, None])
        return self._made

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the images on a device or as another type, as ``Tensor.to`` does."""
        wanted = args[0] if len(args) == 1 else None
        if self._made is None and isinstance(wanted, (str, torch.device)) and not kwargs.keys() - {"non_blocking"}:
            device = torch.device(wanted)
            if device.type != "cpu":
                return self.looked_up(device, **kwargs)
        return self.made().to(*args, **kwargs)

    def looked_up(self, device: torch.device, non_blocking: bool = False) -> Tensor:
        """Make the images on a device by a table: its division may differ in the last bit, which looking up cannot."""
        places = self._grey.to(device, non_blocking=non_blocking).int()
        return torch.stack([values[places] for values in _table(device)], dim=1)


class Packing:
    """What joins samples in a worker: their images to `Planes` if all of them are such, all else as ``own`` does.

    Args:
        own: joins samples; None among them is an image to be left out, if it knows of that.
    """

    def __init__(self, own: Collate) -> None:
        self.own = own

    def __call__(self, samples: list[Any]) -> Any:
        """Join samples to a batch."""
        grey: list[Any] = []
        for sample in samples:
            plane = None if sample is None else plane_of(sample["image"])
            if sample is not None and plane is None:
                return self.own(samples)
            grey.append(sample and {**sample, "image": plane})
        batch = self.own(grey)
        return batch if batch is None else {**batch, "image": Planes(batch["image"])}


class ShippingLoader(DataLoader[Any]):
    """A DataLoader whose workers ship planes; to whoever looks at it, it is any other."""

    packed: tuple[Collate, ...] = (collate,)
    """What may join planes in the place of images."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # of DataLoader's own kind, or of planes made images
        own = self.collate_fn
        if self.num_workers == 0 or own not in self.packed:
            return super().__iter__()
        self.collate_fn = Packing(own)  # the workers' alone: others may read it, or wrap it
        try:
            return _images_of(super().__iter__())
        finally:
            self.collate_fn = own


def _images_of(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        planes = None if batch is None else batch["image"]
        yield {**batch, "image": GreyImages.of(planes.grey)} if isinstance(planes, Planes) else batch


def _made_of(values: Any) -> Any:
    return apply_to_collection(values, GreyImages, GreyImages.made)


@lru_cache(maxsize=16)
def _table(device: torch.device) -> Tensor:
    """The three channels of all 256 grey values, (3, 256)."""
    with torch.inference_mode(False):  # a training may use what a validation has made
        return normalise(torch.arange(256, dtype=torch.uint8)[None])[:, 0].to(device)
