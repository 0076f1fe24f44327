"""The images for ``predict``, where those are not simply the test split."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset, DistributedSampler, Subset

from lightning_chex.data.contract import DataError, Predicted, XrayDataModule, described, name_of
from lightning_chex.data.contract_checks import Checked, first_of
from lightning_chex.data.images.images import image_size


class _Joined(Dataset):
    """Concatenated datasets of one data module; samples get the size of their files."""

    def __init__(self, datasets: Sequence[Checked]) -> None:
        self.datasets = datasets
        self.known = [described(dataset.dataset) for dataset in datasets]
        self.starts = np.cumsum([0, *(len(dataset) for dataset in datasets)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def image_ids(self) -> list[str] | None:
        """Ids of all images; None where a dataset does not list its own."""
        if any(known.image_ids is None for known in self.known):
            return None
        return [str(name) for known in self.known for name in known.image_ids or ()]

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        dataset = self.datasets[part]
        within = index - int(self.starts[part])
        sample = dataset[within]
        paths = self.known[part].paths
        if paths is None or sample is None:
            return sample
        width, height = image_size(paths[within])  # of the file itself, also where pixels come from a prepared copy
        return {**sample, "source_size": (height, width)}


def choose(
    data: XrayDataModule,
    part: str = "test",
    limit: int | None = None,
    only_positive: bool = False,
    finished: Collection[str] = frozenset(),
) -> Predicted:
    """Choose images for ``predict``.

    Args:
        data: whose images.
        part: the name of one of its ``parts``, or ``all``.
        limit: only so many, the first ones.
        only_positive: leave out images none of whose classes is positive; without labels all stay.
        finished: ids of images to skip; ignored where a data set does not list its image ids.

    Raises:
        DataError: bad files, no such part, or no such image in it.
    """
    data.look()
    parts = data.parts()
    if part != "all" and part not in parts:
        raise DataError(f"split is {part!r}: {name_of(data)} has {', '.join(parts)}; give one of them, or all")
    datasets = list(parts.values()) if part == "all" else [parts[part]]
    joined = _Joined([Checked(data, parts[name], f"{name} images") for name in parts if part in ("all", name)])
    classes = len(data.class_names or ())
    labels = [dataset.labels for dataset in datasets if len(dataset)]
    labelled = all(own.ndim == 1 or (own.shape[1] > 0 and own.shape[1] == (classes or own.shape[1])) for own in labels)
    chosen = list(range(len(joined)))
    if only_positive and classes and labelled and labels:
        chosen = torch.cat([(own > 0).any(1) for own in labels]).nonzero().flatten().tolist()
    chosen = chosen[:limit]
    if not chosen:
        what = "image with a positive label" if len(joined) else "image"
        raise DataError(f"there is no {what} in split {part} of {name_of(data)}: give another split or targets")
    all_names = joined.image_ids
    names = [] if all_names is None else [all_names[index] for index in chosen]
    left = [index for index, name in zip(chosen, names, strict=True) if name not in finished] if names else chosen
    images = Subset(cast(Dataset, data.readable(joined, f"{part} images")), left)
    first_of(images)  # what cannot be used is told before any long work
    return Predicted(images, len(chosen), names, labelled)


def share_of_few(images: Any, trainer: pl.Trainer | None) -> DistributedSampler | None:
    """Repeat images where there are fewer than processes, as Lightning's sampler would give some processes none.

    Returns:
        The sampler of this process; None where Lightning's serves.
    """
    if trainer is None or not 0 < len(images) < trainer.world_size:
        return None
    return DistributedSampler(images, trainer.world_size, trainer.global_rank, shuffle=False)
