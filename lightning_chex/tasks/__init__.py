"""LightningModules: what is trained, and how it is measured."""

from lightning_chex.tasks.classification import ClassificationTask
from lightning_chex.tasks.regression import RegressionTask
from lightning_chex.tasks.segmentation import SegmentationTask

__all__ = ["ClassificationTask", "RegressionTask", "SegmentationTask"]
