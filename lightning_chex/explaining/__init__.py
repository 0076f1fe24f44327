"""What the callback, explain and evaluate share: the model, its statistics and checkpoints, cases, the map store."""

from lightning_chex.explaining.map_folder import read_index, read_saliency

__all__ = ["read_index", "read_saliency"]
