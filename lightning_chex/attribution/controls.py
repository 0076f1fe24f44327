"""Controls: maps made without the model, with which every measure is compared."""

import hashlib
from os import PathLike
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.files import write_whole


class EveryPixel(Attributor):
    """Marks every pixel alike, with 1: the floor of any overlap with boxes."""

    title = "Every pixel"
    description = "marks every pixel alike"
    unit = "none"
    explains_class = None

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Ones."""
        return images.new_ones(len(images), *images.shape[-2:], dtype=torch.float32)


class RandomMap(Attributor):
    """Uniform noise in [0, 1), drawn anew for each image and target: chance level.

    A map depends on ``seed``, the image's values and the target's class index, and on nothing else: not on the batch,
    the order, the device or the global random state. So an interrupted evaluation that goes on draws the same maps. A
    score, whose target is no class, has one map per image.

    Args:
        seed: another seed gives other maps.
    """

    title = "Random map"
    description = "noise"
    unit = "none"
    explains_class = None

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Uniform noise."""
        size = images.shape[-2:]
        maps = torch.empty(len(images), *size)
        for i, name in enumerate(_class_names(images, target)):
            digest = hashlib.sha256(f"{self.seed}/{name}/".encode() + _bytes(images[i])).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
            maps[i] = torch.rand(size, generator=generator)
        return maps.to(images.device)


class PriorMap(Attributor):
    """The mean map of the class over other images, the same for every image.

    Args:
        maps: >= 0 and finite, (K, H, W), one per class, or one, (1, H, W), for scores and all classes; or a safetensors
            file that `save` has written. Resized bilinearly to the images.

    Raises:
        ValueError: the file cannot be read, or the maps are not as they should be.

    Example:
        >>> boxes = torch.zeros(3, 8, 8, dtype=torch.bool)
        >>> boxes[0, :4], boxes[1, :2], boxes[2, 6:] = True, True, True
        >>> prior = PriorMap.from_regions(boxes, torch.tensor([0, 0, 1]), num_classes=2)
        >>> prior.attribute(nn.Identity(), torch.zeros(1, 3, 8, 8), torch.tensor([0]))[0, :, 0]
        tensor([1.0000, 1.0000, 0.5000, 0.5000, 0.0000, 0.0000, 0.0000, 0.0000])
    """

    title = "Prior map"
    description = "the mean region of other images, whatever this one shows"
    unit = "share of the class's regions"
    explains_class = None

    def __init__(self, maps: Tensor | str | PathLike[str]) -> None:
        super().__init__()
        source = "maps" if isinstance(maps, Tensor) else f"maps={str(maps)!r}"
        if not isinstance(maps, Tensor):
            maps = _read(maps)
        if maps.ndim != 3 or not maps.numel() or not torch.isfinite(maps).all() or (maps < 0).any():
            raise ValueError(f"{source} must be finite, >= 0 and (K, H, W), not of shape {tuple(maps.shape)}")
        self.class_maps = maps.float()

    @classmethod
    def from_regions(cls, regions: Tensor, classes: Tensor, num_classes: int) -> Self:
        """Average regions by class.

        Args:
            regions: bool (N, H, W), boxes or masks of other images than those explained, N >= 1.
            classes: int64 (N,), the class of each.
            num_classes: K. A class without a region takes the mean of all.

        Raises:
            ValueError: there is no region at all.
        """
        if not len(regions):
            raise ValueError("regions is empty: a prior map needs boxes or masks of other images")
        values = regions.float()
        found = [values[classes == k] for k in range(num_classes)]
        return cls(torch.stack([(own if len(own) else values).mean(0) for own in found]))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the maps to a safetensors file."""
        write_whole(path, save({"maps": self.class_maps.cpu().contiguous()}), sync=True)

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """The maps of the targets' classes, as large as the images."""
        count = len(self.class_maps)
        index = torch.zeros(len(images), dtype=torch.long)
        if count > 1:
            if target is None or target.is_floating_point():
                raise ValueError(f"there are prior maps of {count} classes: give a class index per image as target")
            index = target.cpu().long()
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
                raise ValueError(f"target holds {index.tolist()}; there are prior maps of the classes 0 to {count - 1}")
        resized = F.interpolate(self.class_maps[:, None], images.shape[-2:], mode="bilinear")[:, 0]
        return resized[index].to(images.device)


def _bytes(image: Tensor) -> bytes:
    return image.detach().float().contiguous().cpu().numpy().tobytes()


def _class_names(images: Tensor, target: Tensor | None) -> list[str]:
    if target is None or target.is_floating_point():
        return ["score"] * len(images)
    return [str(value) for value in target.tolist()]


def _read(path: str | PathLike[str]) -> Tensor:
    remedy = "write one with PriorMap.from_regions(...).save(path)"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"maps={str(path)!r} cannot be read ({type(error).__name__}: {error}); {remedy}") from error
    if "maps" not in tensors:
        raise ValueError(f"maps={str(path)!r} holds no tensor named maps but {sorted(tensors)}; {remedy}")
    return tensors["maps"]
