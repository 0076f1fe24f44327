"""Files of weights: the one place where they are read and judged; nothing in them is executed."""

from lightning_chex.checkpoints.contents import CheckpointError, read_checkpoint
from lightning_chex.checkpoints.limits import is_address, stray_path
from lightning_chex.checkpoints.weights import WeightsFile, read_weights

__all__ = ["CheckpointError", "WeightsFile", "is_address", "read_checkpoint", "read_weights", "stray_path"]
