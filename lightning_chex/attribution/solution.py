"""What an optimised bottleneck tells: its map, its mask and how it got there."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_chex.attribution.bottleneck import Bottleneck
from lightning_chex.attribution.information import bits_per_cell, bits_per_pixel


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

    def report(self, size: tuple[int, int]) -> dict[str, Tensor]:
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
    """Everything an optimised bottleneck tells about N explained targets.

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
