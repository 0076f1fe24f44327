"""A training run on disk: its folder and record, the last checkpoint, stopping and resuming."""

from lightning_chex.runs.last_checkpoint import LastCheckpoint, WholeCheckpointIO, keep_newest_state
from lightning_chex.runs.run_folder import RUN_RECORD, check_place, read_record, run_folder, undisturbed
from lightning_chex.runs.stopping import FiniteWeights, StopOnSignal, TimeLimit

__all__ = [
    "FiniteWeights",
    "LastCheckpoint",
    "RUN_RECORD",
    "StopOnSignal",
    "TimeLimit",
    "WholeCheckpointIO",
    "check_place",
    "keep_newest_state",
    "read_record",
    "run_folder",
    "undisturbed",
]
