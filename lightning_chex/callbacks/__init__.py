"""Callbacks: explanations at validation end, predictions as a table."""

from lightning_chex.callbacks.iba import IBACallback
from lightning_chex.callbacks.predictions import PredictionWriter

__all__ = ["IBACallback", "PredictionWriter"]
