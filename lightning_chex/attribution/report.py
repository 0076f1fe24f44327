"""What an optimised bottleneck tells beside its map."""

from dataclasses import dataclass

from torch import Tensor


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
    """

    saliency: Tensor
    lambda_: Tensor
    capacity: Tensor
    total_bits: Tensor
    objective: Tensor
    information: Tensor
