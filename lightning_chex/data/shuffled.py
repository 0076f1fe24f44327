"""Training images with each other's labels, for a network that learns nothing of what they show."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from lightning_chex.data.contract import LabelledDataset, described


class ShuffledLabels(Dataset):
    """A dataset whose labels are permuted among its images; how often each occurs stays as it is.

    Args:
        dataset: a ``LabelledDataset``.
        seed: of the permutation.

    Attributes:
        labels: the permuted labels, shaped as the dataset's.

    Raises:
        ValueError: the dataset has no labels.
    """

    def __init__(self, dataset: LabelledDataset, seed: int = 0) -> None:
        if dataset.labels.ndim == 2 and not dataset.labels.shape[1]:
            raise ValueError("shuffle_labels needs labels, and these images have none")
        self.dataset = dataset
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
        self.labels = dataset.labels[order]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read sample ``index``, with the label of another one."""
        return {**self.dataset[index], "label": self.labels[index].clone()}

    @property
    def image_ids(self) -> Sequence[str] | None:
        """Ids of all images, None where the dataset does not list them."""
        return described(self.dataset).image_ids

    @property
    def patient_ids(self) -> Sequence[str] | None:
        """Who each image shows, None where the dataset does not list them."""
        return described(self.dataset).patient_ids
