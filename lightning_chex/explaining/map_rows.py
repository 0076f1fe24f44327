"""What the index says of the maps of a batch, and the pictures they are laid over."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_chex.explaining.map_folder import Row
from lightning_chex.explaining.naming import map_name


def rows_of(
    batch: dict[str, Any],
    predictions: Tensor,
    rows: Tensor,
    targets: Sequence[str],
    class_names: Sequence[str],
    saliency: Tensor,
) -> list[Row]:
    """Describe the maps of a batch.

    Args:
        batch: ``image_id``, and ``label`` and ``source_size`` where they are known.
        predictions: (B, K) or (B,).
        rows: the image each map belongs to, (N,); all maps of an image are here.
        targets: names of what they explain, N.
        class_names: names of the K outputs, empty for a score.
        saliency: the maps (N, H, W).
    """
    count = len(predictions)
    predicted = predictions.reshape(count, -1).tolist()
    truths = batch["label"].reshape(count, -1).tolist() if "label" in batch else None
    sizes = batch.get("source_size") or [("", "")] * count
    maps_of = torch.bincount(rows, minlength=count).tolist()
    columns = {name: k for k, name in enumerate(class_names)}
    described = []
    for at, target, total in zip(rows.tolist(), targets, saliency.double().sum((1, 2)).tolist(), strict=True):
        k, image = columns.get(target, 0), str(batch["image_id"][at])
        height, width = map(str, sizes[at])
        described.append(
            Row(
                image=image,
                target=target,
                prediction=f"{predicted[at][k]:.6g}",
                truth="" if truths is None else f"{truths[at][k]:g}",
                total=f"{total:.6g}",
                file=f"maps/{map_name(image, target)}.npy",
                width=width,
                height=height,
                targets=str(maps_of[at]),
            )
        )
    return described


def grey_pictures(images: Tensor) -> Tensor:
    """Network inputs (B, C, H, W) as grey values in [0, 1] on the CPU, (B, H, W); each stretched to its own range."""
    grey = images.float().mean(1).cpu()
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    return (grey - low) / (high - low).clamp(min=1e-6)
