"""Former name of `lightning_chex.explanations` and `lightning_chex.runs`, for configurations of version 0.2."""

from lightning_chex.explanations import (
    Alarms,
    Explainer,
    IBACallback,
    LungPictures,
    MapWriter,
    PredictionWriter,
    ReliabilityDiagram,
    SubgroupScores,
)
from lightning_chex.runs import FiniteWeights, LastCheckpoint, StopOnSignal, TimeLimit

__all__ = [
    "Alarms",
    "Explainer",
    "FiniteWeights",
    "IBACallback",
    "LastCheckpoint",
    "LungPictures",
    "MapWriter",
    "PredictionWriter",
    "ReliabilityDiagram",
    "StopOnSignal",
    "SubgroupScores",
    "TimeLimit",
]
