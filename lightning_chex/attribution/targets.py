"""Targets: the outputs to explain, and the image of each."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


def positive_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Every positive label of every image.

    Args:
        labels: (B, K) in {0, 1}.

    Returns:
        Row of the image and class index of each target, int64 (N,) each: ``attribute(model, images, classes, rows)``.

    Example:
        >>> positive_labels(torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 0]]))
        (tensor([0, 0, 2]), tensor([1, 2, 0]))
    """
    rows, classes = (labels > 0).nonzero().unbind(1)  # NaN stands for unknown
    return rows, classes


def top_classes(output: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k classes with the highest outputs of every image, highest first.

    Args:
        output: (B, K) logits or probabilities.
        k: how many, 1 to K.

    Returns:
        Rows and class indices, int64 (B k,) each.
    """
    if not 1 <= k <= output.shape[1]:
        raise ValueError(f"k={k} must lie between 1 and the {output.shape[1]} classes")
    classes = output.topk(k, dim=1).indices
    rows = torch.arange(len(output), device=output.device).repeat_interleave(k)
    return rows, classes.flatten()


def explained_output(output: Tensor, target: Tensor | None) -> Tensor:
    """Pick the output each target explains.

    Args:
        output: (N, K), (N, 1) or (N,).
        target: integer indices of the K outputs, (N,); None or floats for the only output there is.

    Returns:
        (N,).

    Raises:
        ValueError: there is no such output.
    """
    if not isinstance(output, Tensor) or output.ndim not in (1, 2):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model's output is {found}; it must be a tensor (B, K), (B, 1) or (B,)")
    if target is None or target.is_floating_point():
        if output.ndim == 2 and output.shape[1] != 1:
            raise ValueError(f"the model has {output.shape[1]} outputs: give the index of one per image as target")
        return output.reshape(-1)
    if output.ndim == 1 or target.dtype == torch.bool:
        raise ValueError(
            f"target of dtype {target.dtype} does not suit an output of shape {tuple(output.shape)}: give integer "
            "indices for (B, K) outputs, and target=None for a single score"
        )
    if len(output) != len(target):
        raise ValueError(
            f"the model's output has shape {tuple(output.shape)} for {len(target)} images: it must have a row per image"
        )
    if len(target) and not 0 <= int(target.min()) <= int(target.max()) < output.shape[1]:
        raise ValueError(
            f"target lies between {int(target.min())} and {int(target.max())}; the model has outputs 0 to "
            f"{output.shape[1] - 1}"
        )
    return output.gather(1, target[:, None])[:, 0]


@dataclass(frozen=True)
class Targets:
    """N explained targets.

    Attributes:
        rows: the image each target belongs to, int64 (N,).
        values: a class index or a score each, (N,); None where the objective needs none.
        shape: in which they were given, of N entries: (B,), (B, T) or (N,).
    """

    rows: Tensor
    values: Tensor | None
    shape: tuple[int, ...]

    @classmethod
    def of(cls, images: Tensor, target: Tensor | None, rows: Tensor | None) -> Self:
        """Match images, targets and rows of ``attribute``.

        Args:
            images: (B, C, H, W).
            target: int64 or floats, see `target_tensor`.
            rows: int64 (N,), see `row_tensor`.

        Raises:
            ValueError: their shapes do not fit each other.
        """
        if rows is not None:
            if target is not None and target.shape != rows.shape:
                raise ValueError(f"target has shape {tuple(target.shape)}; {len(rows)} rows need ({len(rows)},)")
            if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(images):
                raise ValueError(f"rows must lie between 0 and {len(images) - 1}, the images given")
            return cls(rows.to(images.device), _on(target, images), (len(rows),))
        every = torch.arange(len(images), device=images.device)
        if target is None:
            return cls(every, None, (len(images),))
        if target.ndim not in (1, 2) or len(target) != len(images):
            raise ValueError(
                f"target has shape {tuple(target.shape)}; {len(images)} images need ({len(images)},), or "
                f"({len(images)}, T) for T targets each"
            )
        per_image = target.shape[1] if target.ndim == 2 else 1
        return cls(every.repeat_interleave(per_image), _on(target.flatten(), images), tuple(target.shape))

    def __len__(self) -> int:
        return len(self.rows)

    def chunk(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The images that targets ``start`` to ``stop`` need, where among these each target's is, and the values."""
        needed, index = self.rows[start:stop].unique(return_inverse=True)
        return needed, index, None if self.values is None else self.values[start:stop]


def _on(target: Tensor | None, images: Tensor) -> Tensor | None:
    if target is None:
        return None
    with torch.inference_mode(False):  # else the clone would be an inference tensor too, and they cannot be saved
        target = target.to(images.device)
        return target.clone() if target.is_inference() else target
