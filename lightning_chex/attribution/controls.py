"""Maps that know nothing of the model: what every measure has to be compared with."""

import hashlib
from abc import abstractmethod
from os import PathLike
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.information import image_size
from lightning_chex.attribution.targets import Targets


class _Control(Attributor):
    """A map for classes and scores alike that never runs the model."""

    @property
    def explains_class(self) -> None:
        """None: both classes and scores."""

    @abstractmethod
    def maps(self, images: Tensor, targets: Targets) -> Tensor:
        """Make N maps, float32 (N, H, W)."""

    def attribute(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Make one map per target; see `Attributor.attribute`. The model is not used."""
        targets = Targets.of(images, target, rows)
        maps = self.maps(images, targets)
        return maps if rows is not None or target is None else maps.view(*target.shape, *image_size(images))


class EveryPixel(_Control):
    """Marks every pixel alike, with 1: the floor of any overlap with boxes."""

    def maps(self, images: Tensor, targets: Targets) -> Tensor:
        """Ones."""
        return images.new_ones(len(targets), *image_size(images), dtype=torch.float32)


class RandomMap(_Control):
    """Uniform noise in [0, 1), drawn anew for each image and target: chance level.

    A map depends on ``seed``, the image's values and the target's class index, and on nothing else: not on the batch,
    the order, the device or the global random state. So an interrupted evaluation that goes on draws the same maps. A
    score, whose target is no class, has one map per image.

    Args:
        seed: another seed gives other maps.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def maps(self, images: Tensor, targets: Targets) -> Tensor:
        """Uniform noise."""
        size = image_size(images)
        contents = {row: _bytes(images[row]) for row in targets.rows.unique().tolist()}
        maps = torch.empty(len(targets), *size)
        for i, (row, name) in enumerate(zip(targets.rows.tolist(), _class_names(targets), strict=True)):
            digest = hashlib.sha256(f"{self.seed}/{name}/".encode() + contents[row]).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
            maps[i] = torch.rand(size, generator=generator)
        return maps.to(images.device)


class PriorMap(_Control):
    """The mean map of the class over other images, whatever the image: what is known without looking.

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

    def __init__(self, maps: Tensor | str | PathLike[str]) -> None:
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
        save_file({"maps": self.class_maps.cpu().contiguous()}, path)

    def maps(self, images: Tensor, targets: Targets) -> Tensor:
        """The maps of the targets' classes, as large as the images."""
        count = len(self.class_maps)
        index = torch.zeros(len(targets), dtype=torch.long)
        if count > 1:
            values = targets.values
            if values is None or values.is_floating_point():
                raise ValueError(f"there are prior maps of {count} classes: give a class index per image as target")
            index = values.cpu().long()
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
                raise ValueError(f"target holds {index.tolist()}; there are prior maps of the classes 0 to {count - 1}")
        resized = F.interpolate(self.class_maps[:, None], image_size(images), mode="bilinear")[:, 0]
        return resized[index].to(images.device)


def _bytes(image: Tensor) -> bytes:
    return image.detach().float().contiguous().cpu().numpy().tobytes()


def _class_names(targets: Targets) -> list[str]:
    if targets.values is None or targets.values.is_floating_point():
        return ["score"] * len(targets)
    return [str(value) for value in targets.values.tolist()]


def _read(path: str | PathLike[str]) -> Tensor:
    remedy = "write one with PriorMap.from_regions(...).save(path)"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"maps={str(path)!r} cannot be read ({type(error).__name__}: {error}); {remedy}") from error
    if "maps" not in tensors:
        raise ValueError(f"maps={str(path)!r} holds no tensor named maps but {sorted(tensors)}; {remedy}")
    return tensors["maps"]
