"""Saliency maps from any torch model: information-bottleneck attribution and its parts."""

from lightning_chex.attribution.attributor import Attributor, frozen
from lightning_chex.attribution.iba import IBA
from lightning_chex.attribution.objectives import OBJECTIVES
from lightning_chex.attribution.partition import LayerError
from lightning_chex.attribution.statistics import FeatureStatistics

__all__ = ["IBA", "OBJECTIVES", "Attributor", "FeatureStatistics", "LayerError", "frozen"]
