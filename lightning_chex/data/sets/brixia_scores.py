"""X-rays with Brixia scores: zones, targets, and the agreement of raters."""

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from lightning_chex.class_names import DETECTORS
from lightning_chex.data.images.images import ImageReader, read_grey
from lightning_chex.data.images.lung_files import MaskFiles, lungs_of_image
from lightning_chex.data.sample import detector_label, severity_of
from lightning_chex.data.sets.image_files import ImageFiles
from lightning_chex.data.transforms import ImageTransform

Target = Literal["severity", "zones", "detectors"]

ZONES = ("A", "B", "C", "D", "E", "F")
"""Brixia zones: A, B, C the patient's right lung (image left) from top to bottom; D, E, F the left lung."""


def target_names(target: Target) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a target's classes and of its scores, one of them empty; an unknown one is a ValueError."""
    if target not in get_args(Target):
        raise ValueError(f"target is {target!r}: give {', '.join(map(repr, get_args(Target)))}")
    return {"severity": ((), ("severity",)), "zones": ((), ZONES), "detectors": (DETECTORS, ())}[target]


def target_label(zones: torch.Tensor, target: Target) -> torch.Tensor:
    """Return the labels of a target.

    Args:
        zones: scores 0 to 3 of the six zones, (N, 6).
        target: ``severity``, their sum, 0 to 18; ``zones``, themselves; ``detectors``, see ``detector_label``.

    Returns:
        float32 (N,), (N, 6) or (N, 3).

    Example:
        >>> target_label(torch.tensor([[0.0, 1, 2, 3, 3, 3]]), "severity")
        tensor([12.])
    """
    if target == "severity":
        return severity_of(zones)
    return zones.clone() if target == "zones" else detector_label(zones)


class ScoredXrays(ImageFiles):
    """X-rays with the Brixia scores of their six lung zones.

    Args:
        images: columns ``image_id``, ``patient_id``, ``path`` and the zones ``A`` to ``F`` (0 to 3), a row per image;
            and, for samples with a ``lung_mask``, ``masks`` (see ``MaskFiles``).
        target: what ``label`` is, see ``target_label``.
        transform: what an image goes through.
        read: reads an image file.
    """

    def __init__(
        self, images: pd.DataFrame, target: Target, transform: ImageTransform, read: ImageReader = read_grey
    ) -> None:
        super().__init__(images, transform, read)
        self.zones = torch.from_numpy(images[list(ZONES)].to_numpy(dtype=np.float32, copy=True))
        self.labels = target_label(self.zones, target)
        self.masks: list[MaskFiles] | None = images["masks"].tolist() if "masks" in images else None

    def annotations(self, index: int, height: int, width: int) -> dict[str, Any]:
        """Return the lung masks of one image, if the data set has any."""
        if self.masks is None:
            return {}
        return {"masks": {"lung_mask": lungs_of_image(self.masks[index], (height, width))}}

    def values(self, index: int) -> dict[str, Any]:
        """Return the label and the zone scores of one image."""
        return {**super().values(index), "zones": self.zones[index].clone()}


def rater_agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Measure the agreement of two raters of the same images, with which a model's error compares.

    Args:
        first: one rater's zone scores, 0 to 3, (N, 6), N at least 1.
        second: the other's.

    Returns:
        ``images``, N; ``zone_agreement``, the share of all zones given the same score; ``zone_mae``, their mean
        absolute difference; ``zone_agreement/A``, ``zone_mae/A``, ``zone_pearson/A`` ... by zone; and of the global
        scores, 0 to 18, ``global_mae``, ``global_bias`` (first less second, mean) and ``global_pearson``. A
        correlation is NaN where one of the raters gives all images the same score.

    Raises:
        ValueError: other shapes.

    Example:
        >>> figures = rater_agreement(np.array([[0, 1, 2, 3, 0, 0]]), np.array([[0, 1, 2, 1, 0, 0]]))
        >>> round(figures["zone_agreement"], 3), figures["global_mae"]
        (0.833, 2.0)
    """
    first = np.asarray(first, dtype=np.float64)
    second = np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != len(ZONES) or len(first) == 0:
        raise ValueError(
            f"scores have shapes {first.shape} and {second.shape}: give (N, {len(ZONES)}) twice, N above 0"
        )
    equal = first == second
    apart = np.abs(first - second)
    total = first.sum(axis=1)
    other = second.sum(axis=1)
    figures = {"images": len(first), "zone_agreement": equal.mean(), "zone_mae": apart.mean()}
    for i, zone in enumerate(ZONES):
        figures[f"zone_agreement/{zone}"] = equal[:, i].mean()
        figures[f"zone_mae/{zone}"] = apart[:, i].mean()
        figures[f"zone_pearson/{zone}"] = _pearson(first[:, i], second[:, i])
    figures["global_mae"] = np.abs(total - other).mean()
    figures["global_bias"] = (total - other).mean()
    figures["global_pearson"] = _pearson(total, other)
    return {name: float(figure) for name, figure in figures.items()}


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else float("nan")
