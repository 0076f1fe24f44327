"""LightningModules: what is trained, and how it is measured."""

from lightning_chex.tasks.backbone import UNET_STRIDE, create_backbone, create_unet
from lightning_chex.tasks.classification import ClassificationTask, MultilabelScores
from lightning_chex.tasks.optimization import Optimization
from lightning_chex.tasks.regression import RegressionTask
from lightning_chex.tasks.repeats import unrepeated_rows
from lightning_chex.tasks.segmentation import LungDice, SegmentationTask
from lightning_chex.tasks.task import ChestXrayTask
from lightning_chex.tasks.weights import start_from

__all__ = [
    "UNET_STRIDE",
    "ChestXrayTask",
    "ClassificationTask",
    "LungDice",
    "MultilabelScores",
    "Optimization",
    "RegressionTask",
    "SegmentationTask",
    "create_backbone",
    "create_unet",
    "start_from",
    "unrepeated_rows",
]
