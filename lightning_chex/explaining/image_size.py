"""Whether the images at hand are as large as those a model was trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lightning_chex.attribution import LayerError
from lightning_chex.explaining.feature_statistics import Saved, saved_by_layer, shapes_of


def trained_size(
    checkpoint: Mapping[str, Any], saved: Sequence[Saved], network: nn.Module, size: int, device: torch.device
) -> int | None:
    """Side in pixels of the images a model was trained on.

    Args:
        checkpoint: as from ``load_weights``. The tasks of this package write ``image_size`` into it.
        saved: feature statistics it holds. Where it says no size, their shapes give it up to a few pixels.
        network: the model's.
        size: side of the images at hand.
        device: of the network.

    Returns:
        None where nobody can tell.
    """
    known = checkpoint.get("image_size")
    if isinstance(known, int):
        return known
    found = {layer: own.shape for one in saved for layer, own in saved_by_layer(*one).items() if own.count}
    if not found:
        return None
    try:
        now = shapes_of(network, found, torch.zeros(1, 3, size, size, device=device))
    except LayerError:  # statistics of a layer that only the trained network has: whatever needs them will say so
        return None
    sides = [size if then == now[layer] else round(size * then[-1] / now[layer][-1]) for layer, then in found.items()]
    return sides[0]
