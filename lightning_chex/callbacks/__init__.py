"""Callbacks: explanations and lungs in pictures at validation end, predictions and maps in files, the newest state."""

from lightning_chex.callbacks.finite_weights import FiniteWeights
from lightning_chex.callbacks.iba import IBACallback
from lightning_chex.callbacks.last_checkpoint import LastCheckpoint
from lightning_chex.callbacks.lungs import LungPictures
from lightning_chex.callbacks.map_writer import MapWriter
from lightning_chex.callbacks.predictions import PredictionWriter
from lightning_chex.callbacks.time_limit import TimeLimit

__all__ = [
    "FiniteWeights",
    "IBACallback",
    "LastCheckpoint",
    "LungPictures",
    "MapWriter",
    "PredictionWriter",
    "TimeLimit",
]
