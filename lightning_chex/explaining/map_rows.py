"""What the index says of the maps of a batch, and the pictures they are laid over."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_chex.attribution import Attribution


def entries_of(
    batch: dict[str, Any],
    predictions: Tensor,
    rows: Tensor,
    targets: Sequence[str],
    class_names: Sequence[str],
    found: Attribution,
    unit: str,
) -> list[dict[str, str]]:
    """Describe the maps of a batch for the index; see ``map_folder.COLUMNS``.

    Args:
        batch: ``image_id``, and ``label`` and ``source_size`` where they are known.
        predictions: (B, K) or (B,).
        rows: the image each map belongs to, (N,); all maps of an image are here.
        targets: names of what they explain, N.
        class_names: names of the K outputs, empty for a score.
        found: the maps (N, H, W), on the CPU.
        unit: name of the column for the sum of a map.
    """
    count = len(predictions)
    predicted = predictions.reshape(count, -1).tolist()
    truths = batch["label"].reshape(count, -1).tolist() if "label" in batch else None
    sizes = batch.get("source_size") or [("", "")] * count
    maps_of = torch.bincount(rows, minlength=count).tolist()
    columns = {name: k for k, name in enumerate(class_names)}
    totals, converged = found.maps.double().sum((1, 2)).tolist(), found.convergence.tolist()
    described = []
    for at, target, total, convergence in zip(rows.tolist(), targets, totals, converged, strict=True):
        k = columns.get(target, 0)
        height, width = map(str, sizes[at])
        described.append(
            {
                "image": str(batch["image_id"][at]),
                "target": target,
                "prediction": f"{predicted[at][k]:.6g}",
                "truth": "" if truths is None else f"{truths[at][k]:g}",
                unit: f"{total:.6g}",
                "convergence": "" if math.isnan(convergence) else f"{convergence:.3g}",
                "pixels": "x".join(map(str, found.maps.shape[1:])),
                "width": width,
                "height": height,
                "targets": str(maps_of[at]),
            }
        )
    return described


def grey_pictures(images: Tensor) -> Tensor:
    """Network inputs (B, C, H, W) as grey values in [0, 1] on the CPU, (B, H, W); each stretched to its own range."""
    grey = images.float().mean(1).cpu()
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    return (grey - low) / (high - low).clamp(min=1e-6)
