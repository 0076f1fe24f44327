"""The way of images from a worker to the main process: one grey byte a pixel, a twelfth of what the network gets.

An image is a grey plane of 50 KB at 224 pixels; as float32 in three channels it has 602 KB. Workers pass the former on,
and the loader gives batches of the latter, the same to the last bit. What a worker cannot show to be such a plane, an
image of a data set of one's own or one changed since, goes as it is; so does all that is joined in a way of one's own.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from lightning_chex.data.sample import collate
from lightning_chex.data.transforms import normalise, plane_of

Collate = Callable[[list[Any]], Any]


class Planes:
    """The grey values of a batch of images.

    Args:
        grey: uint8 (B, H, W).
        pinned: whether they are in pinned memory, where the images then are too.
    """

    def __init__(self, grey: Tensor, pinned: bool = False) -> None:
        self.grey, self.pinned = grey, pinned

    def images(self) -> Tensor:
        """Return the images, float32 (B, 3, H, W)."""
        return normalise(self.grey[:, None], self.pinned)

    def pin_memory(self) -> "Planes":
        """Return the same in pinned memory; the DataLoader calls it."""
        return Planes(self.grey.pin_memory(), pinned=True)


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
        yield {**batch, "image": planes.images()} if isinstance(planes, Planes) else batch
