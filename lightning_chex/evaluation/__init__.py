"""Comparing attribution methods on a trained model: maps, measures, controls, and results that can be cited."""

from lightning_chex.evaluation.run import Evaluated, Subject, evaluate
from lightning_chex.evaluation.settings import EvaluationSettings

__all__ = ["Evaluated", "EvaluationSettings", "Subject", "evaluate"]
