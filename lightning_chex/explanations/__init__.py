"""Callbacks that explain at validation end: maps, alarms, lung pictures, predictions and files of maps."""

from lightning_chex.explanations.alarms import Alarms
from lightning_chex.explanations.explainer import Explainer
from lightning_chex.explanations.iba_callback import IBACallback
from lightning_chex.explanations.lungs import LungPictures
from lightning_chex.explanations.map_writer import MapWriter
from lightning_chex.explanations.predictions import PredictionWriter
from lightning_chex.explanations.reliability import ReliabilityDiagram
from lightning_chex.explanations.subgroups import SubgroupScores

__all__ = [
    "Alarms",
    "Explainer",
    "IBACallback",
    "LungPictures",
    "MapWriter",
    "PredictionWriter",
    "ReliabilityDiagram",
    "SubgroupScores",
]
