"""Callbacks: explanations and lungs in pictures at validation end, predictions as a table, a limit on time."""

from lightning_chex.callbacks.iba import IBACallback
from lightning_chex.callbacks.lungs import LungPictures
from lightning_chex.callbacks.predictions import PredictionWriter
from lightning_chex.callbacks.time_limit import TimeLimit

__all__ = ["IBACallback", "LungPictures", "PredictionWriter", "TimeLimit"]
