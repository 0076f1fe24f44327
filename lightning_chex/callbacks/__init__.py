"""Callbacks: explanations at validation end, predictions as a table, a limit on time."""

from lightning_chex.callbacks.iba import IBACallback
from lightning_chex.callbacks.predictions import PredictionWriter
from lightning_chex.callbacks.time_limit import TimeLimit

__all__ = ["IBACallback", "PredictionWriter", "TimeLimit"]
