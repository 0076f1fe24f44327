"""Functions of labels alone: order of display, class weights, and a permutation as a control."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_chex.data.contract import DataError, LabelledDataset, described


def varied_order(labels: torch.Tensor) -> list[int]:
    """Order samples so that any first k show the variety of all.

    Args:
        labels: (N, K) in {0, 1}, or scores (N,).

    Returns:
        A permutation of 0 to N - 1. With classes: one sample of each class in turn, then the next one, and those of
        no class last. With scores: the lowest, the highest, the middle, the quarters, and so on.
    """
    values = labels.numpy()
    if values.ndim == 1:
        by_score = np.argsort(values, kind="stable")
        return by_score[_halving_order(len(by_score))].tolist()
    # the n-th positive of a class has rank n there; a sample takes its place at its best rank over the classes
    ranks = np.where(values > 0, np.cumsum(values > 0, axis=0), np.inf)
    return np.lexsort([np.arange(len(values)), ranks.argmin(axis=1), ranks.min(axis=1)]).tolist()


def _halving_order(n: int) -> list[int]:
    """0, n - 1, then the middle, the quarters, the eighths ... of 0 to n - 1, each once."""
    order = dict.fromkeys([0, n - 1] if n else [])
    parts = 2
    while len(order) < n:
        order.update(dict.fromkeys(round(i * (n - 1) / parts) for i in range(1, parts, 2)))
        parts *= 2
    return list(order)


def pos_weight(labels: torch.Tensor, class_names: Sequence[str]) -> torch.Tensor:
    """Negatives over positives of each class, so that rare classes weigh as much as common ones.

    Args:
        labels: of the training images, (N, K) in {0, 1}; NaN, not known, counts as neither.
        class_names: names of the K classes.

    Returns:
        float32 (K,).

    Raises:
        DataError: a class without a positive, or without a negative, has no such weight.

    Example:
        >>> pos_weight(torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1]]), ["Mass", "Nodule"])
        tensor([3.0000, 0.3333])
    """
    positives = labels.nansum(dim=0)
    negatives = (~labels.isnan()).sum(dim=0) - positives
    for missing, counts in [("positive", positives), ("negative", negatives)]:
        names = [name for name, count in zip(class_names, counts.tolist(), strict=True) if count == 0]
        if names:
            raise DataError(
                f"no {missing} image of {', '.join(names)} among the {len(labels)} training images, so pos_weight "
                "is undefined: train on more images, or without class weights"
            )
    return (negatives / positives).float()


class ShuffledLabels(Dataset):
    """A dataset whose labels are permuted among its images, so that a network learns nothing of their content.

    Args:
        dataset: whose images; a ValueError if it has no labels.
        seed: of the permutation.
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
        """Read sample ``index`` with its permuted label."""
        return {**self.dataset[index], "label": self.labels[index].clone()}

    @property
    def image_ids(self) -> Sequence[str] | None:
        """Ids of all images; None where the dataset does not list them."""
        return described(self.dataset).image_ids

    @property
    def patient_ids(self) -> Sequence[str] | None:
        """The patient of each image; None where the dataset does not list them."""
        return described(self.dataset).patient_ids
