"""Callbacks: explanations and lungs in pictures at validation end, alarms, predictions and maps in files."""

from lightning_chex.callbacks.alarms import Alarms
from lightning_chex.callbacks.explaining import Explainer
from lightning_chex.callbacks.iba import IBACallback
from lightning_chex.callbacks.last_checkpoint import LastCheckpoint, WholeCheckpointIO, keep_newest_state
from lightning_chex.callbacks.lungs import LungPictures
from lightning_chex.callbacks.map_writer import MapWriter
from lightning_chex.callbacks.predictions import PredictionWriter
from lightning_chex.callbacks.reliability import ReliabilityDiagram
from lightning_chex.callbacks.runs import RUN_RECORD, check_place, read_record, run_folder, undisturbed
from lightning_chex.callbacks.stopping import FiniteWeights, StopOnSignal, TimeLimit
from lightning_chex.callbacks.subgroups import SubgroupScores

__all__ = [
    "Alarms", "Explainer", "FiniteWeights", "IBACallback", "LastCheckpoint", "LungPictures", "MapWriter",
    "PredictionWriter", "RUN_RECORD", "ReliabilityDiagram", "StopOnSignal", "SubgroupScores", "TimeLimit",
    "WholeCheckpointIO", "check_place", "keep_newest_state", "read_record", "run_folder", "undisturbed",
]  # fmt: skip
