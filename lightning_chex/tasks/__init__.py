"""LightningModules: what is trained, and how it is measured."""

from lightning_chex.tasks.classification import ClassificationTask
from lightning_chex.tasks.regression import RegressionTask

__all__ = ["ClassificationTask", "RegressionTask"]
