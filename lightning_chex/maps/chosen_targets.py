"""Choice of the classes that images are explained for."""

from collections.abc import Sequence

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_chex.attribution import positive_labels, top_classes


class ChosenTargets:
    """Chooses the targets of a batch.

    Args:
        targets: ``positive`` for every positive label (without labels: every class predicted with ``threshold`` or
            more, else the likeliest one), ``top`` for the likeliest class, or names of classes. A score is explained
            once per image, whatever this says.
        class_names: names of the K classes, empty for a score.
        threshold: probability from which a class counts as predicted.

    Raises:
        MisconfigurationException: an unknown class, none, one twice, or a threshold outside 0 to 1.
    """

    def __init__(self, targets: str | Sequence[str], class_names: Sequence[str], threshold: float) -> None:
        if not 0 <= threshold <= 1:
            raise MisconfigurationException(f"threshold={threshold} must lie between 0 and 1")
        names = [targets] if isinstance(targets, str) else list(targets)
        self.positive = targets == "positive"
        self.top = targets == "top"
        self.class_names = list(class_names)
        self.threshold = threshold
        self.named: list[int] = []
        if self.positive or self.top:
            return
        if not class_names:
            raise MisconfigurationException(
                f"targets={targets!r} names classes, but the model predicts a score: leave targets out"
            )
        unknown = [name for name in names if name not in class_names]
        if unknown or not names or len(set(names)) < len(names):
            what = f"unknown: {', '.join(map(repr, unknown))}" if unknown else "empty, or names a class twice"
            raise MisconfigurationException(
                f"targets={targets!r} is {what}; give positive, top, or some of {', '.join(class_names)}"
            )
        self.named = [list(class_names).index(name) for name in names]

    def of_batch(self, predictions: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Choose.

        Args:
            predictions: probabilities (B, K), or scores.
            labels: (B, K) in {0, 1}, or true scores, or None.

        Returns:
            Row of the image and index of the class of each target, int64 (N,) each, by row; for scores the row of
            each, and the true scores or None.
        """
        if not self.class_names:
            rows = torch.arange(len(predictions), device=predictions.device)
            return rows, None if labels is None else labels.reshape(-1)
        if self.named:
            count = len(predictions)
            named = torch.tensor(self.named, device=predictions.device)
            rows = torch.arange(count, device=predictions.device).repeat_interleave(len(named))
            return rows, named.repeat(count)
        if self.top:
            return top_classes(predictions)
        if labels is not None:
            return positive_labels(labels)
        predicted = predictions >= self.threshold
        likeliest = torch.zeros_like(predicted).scatter(1, predictions.argmax(1, keepdim=True), True)
        return positive_labels(torch.where(predicted.any(1, keepdim=True), predicted, likeliest))
