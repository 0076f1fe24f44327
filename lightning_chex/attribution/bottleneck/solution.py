"""The result of an optimised bottleneck: map in bits, mask and course of the optimisation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_chex.attribution.bottleneck.mask import Bottleneck


@dataclass
class Solution:
    """The optimised bottleneck of N targets.

    Attributes:
        bottleneck: holds the final alpha.
        earlier: bits per cell, (N, h, w), before the last fifth of the steps.
        objective: the objective before each step, (N,) each, if it was recorded.
        information: total bits before each step, (N,) each, if they were recorded.
    """

    bottleneck: Bottleneck
    earlier: Tensor
    objective: list[Tensor] = field(default_factory=list)
    information: list[Tensor] = field(default_factory=list)

    def cells(self) -> Tensor:
        """Bits per feature cell, (N, h, w)."""
        return bits_per_cell(self.bottleneck.capacity())

    def convergence(self, cells: Tensor) -> Tensor:
        """Relative change of the map ``cells`` over the last fifth of the steps, (N,); see `Attribution`."""
        moved = (cells - self.earlier).abs().sum((1, 2))
        return (moved / cells.sum((1, 2)).clamp(min=torch.finfo(cells.dtype).tiny)).float()

    def report(self, size: Sequence[int]) -> dict[str, Tensor]:
        """The fields of a `BottleneckReport` for images of (H, W) pixels; needs the recorded course."""
        cells = self.cells()
        return {
            "saliency": bits_per_pixel(cells, size),
            "lambda_": self.bottleneck.mask()[0],
            "capacity": cells,
            "total_bits": cells.sum((1, 2)),
            "objective": torch.stack(self.objective, 1),
            "information": torch.stack(self.information, 1),
            "convergence": self.convergence(cells),
        }


@dataclass(frozen=True)
class BottleneckReport:
    """The maps of N explained targets, with mask, information and the course of the optimisation.

    Attributes:
        saliency: bits per pixel, (N, H, W).
        lambda_: the mask, (N, C, h, w) in [0, 1].
        capacity: bits per feature cell, (N, h, w).
        total_bits: bits of the whole map, (N,).
        objective: the objective at the masked features before each step, (N, steps): flat at its end if converged.
        information: total bits before each step, (N, steps).
        convergence: relative change of the map over the last fifth of the steps, (N,); see `Attribution`.
    """

    saliency: Tensor
    lambda_: Tensor
    capacity: Tensor
    total_bits: Tensor
    objective: Tensor
    information: Tensor
    convergence: Tensor


def bits_per_cell(capacity_nats: Tensor) -> Tensor:
    """Sum nats per neuron, (B, C, h, w), to bits per feature cell, (B, h, w)."""
    return capacity_nats.sum(1) / math.log(2)


def bits_per_pixel(cells: Tensor, size: Sequence[int]) -> Tensor:
    """Spread bits per feature cell over the pixels of the image.

    Args:
        cells: bits per feature cell, (B, h, w).
        size: (H, W) of the image.

    Returns:
        (B, H, W) bits per pixel: a cell's bits over the pixels it covers, bilinear in between.
    """
    per_pixel = cells[:, None] * (cells.shape[-2] * cells.shape[-1] / (size[0] * size[1]))
    return torch.nn.functional.interpolate(per_pixel, size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
