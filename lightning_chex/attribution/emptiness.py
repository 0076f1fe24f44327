"""Maps that hold too little to say anything: empty maps."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BITS_PER_PIXEL = "bits per pixel"
"""The unit of the maps of bottlenecks, whose sum over the pixels is the information of the whole map."""

OFTEN_EMPTY = 0.05
"""Share of empty maps above which a warning names the remedy."""


def least_bits(size: Sequence[int]) -> float:
    """Total bits below which a map of (H, W) pixels is empty: ``log2(H W)``, 15.6 bits at 224 x 224.

    That many bits are needed to name one of H W equally likely pixels. A bottleneck that lets through less in the whole
    image cannot say where a single pixel lies, and any network leaves some remainder in every cell.
    """
    return math.log2(size[0] * size[1])


def empty_maps(maps: Tensor, unit: str) -> Tensor:
    """Find empty maps.

    A map in bits per pixel is empty when its sum is below `least_bits`. A map in any other unit has no natural scale;
    it is empty when all its pixels have the same value. Pixels that are NaN or infinite count as 0, so that a map
    without any finite pixel is empty in every unit.

    Args:
        maps: (..., H, W).
        unit: of the maps, see ``Attributor.unit``.

    Returns:
        bool (...), on the maps' device.

    Example:
        >>> maps = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
        >>> empty_maps(maps, "bits per pixel").tolist(), empty_maps(maps, "output").tolist()
        ([True, False], [True, True])
    """
    known = torch.where(maps.isfinite(), maps, 0).double()
    if unit == BITS_PER_PIXEL:
        return known.sum((-2, -1)) < least_bits(maps.shape[-2:])
    flat = known.flatten(-2)
    return flat.amax(-1) == flat.amin(-1)


def empty_warning(shares: dict[str, float]) -> str | None:
    """Write one line about methods with many empty maps.

    Args:
        shares: of the maps that are empty, by name of the method; NaN where there are none.

    Returns:
        The methods and the remedy; None if no share is above `OFTEN_EMPTY`.
    """
    many = [f"{share:.0%} of {name}" for name, share in shares.items() if share > OFTEN_EMPTY]
    if not many:
        return None
    return (
        f"empty maps: {', '.join(many)}. They say nothing about where a finding is. Remedy for a bottleneck: a smaller "
        "beta, for example a tenth, or an earlier layer"
    )
