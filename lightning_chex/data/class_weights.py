"""Weights by which rare classes count as much as common ones."""

from collections.abc import Sequence

import torch

from lightning_chex.data.errors import DataError


def pos_weight(labels: torch.Tensor, class_names: Sequence[str]) -> torch.Tensor:
    """Negatives over positives of each class.

    Args:
        labels: of the training images, (N, K) in {0, 1}.
        class_names: names of the K classes.

    Returns:
        float32 (K,).

    Raises:
        DataError: a class without a positive, or without a negative, has no such weight.

    Example:
        >>> pos_weight(torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1]]), ["Mass", "Nodule"])
        tensor([3.0000, 0.3333])
    """
    positives = labels.sum(dim=0)
    negatives = len(labels) - positives
    for missing, counts in [("positive", positives), ("negative", negatives)]:
        names = [name for name, count in zip(class_names, counts.tolist(), strict=True) if count == 0]
        if names:
            raise DataError(
                f"no {missing} image of {', '.join(names)} among the {len(labels)} training images, so pos_weight "
                "is undefined: train on more images, or without class weights"
            )
    return (negatives / positives).float()
