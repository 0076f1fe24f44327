"""Weights files: read and checked in one place; nothing in them is executed."""

from lightning_chex.checkpoints.contents import CheckpointError, read_checkpoint
from lightning_chex.checkpoints.limits import is_address, stray_path
from lightning_chex.checkpoints.several import Given, named_checkpoints, paths_of, read_checkpoints
from lightning_chex.checkpoints.weights import WeightsFile, read_weights

__all__ = [
    "CheckpointError",
    "Given",
    "WeightsFile",
    "is_address",
    "named_checkpoints",
    "paths_of",
    "read_checkpoint",
    "read_checkpoints",
    "read_weights",
    "stray_path",
]
