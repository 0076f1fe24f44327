"""Comparing attribution methods on a trained model: maps, measures, controls, and results that can be cited."""

from lightning_chex.evaluation.assembly import Assembly
from lightning_chex.evaluation.chexlocalize import TASKS, segmentations, write_segmentations
from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.evaluation.measuring import Perturbation, localize
from lightning_chex.evaluation.methods import bottleneck_layer, choose_methods, line_up
from lightning_chex.evaluation.randomization import randomize_labels, randomize_parameters
from lightning_chex.evaluation.records import OtherEvaluationError, Records
from lightning_chex.evaluation.run import Evaluated, evaluate
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.evaluation.summaries import CaseSummaries, ExplainedCase
from lightning_chex.evaluation.untrained import builder, trained_on_shuffled_labels, with_weights

__all__ = [
    "Assembly",
    "CaseSummaries",
    "Evaluated",
    "EvaluationSettings",
    "ExplainedCase",
    "MEASURES",
    "OtherEvaluationError",
    "Perturbation",
    "Records",
    "TASKS",
    "bottleneck_layer",
    "builder",
    "choose_methods",
    "evaluate",
    "line_up",
    "localize",
    "randomize_labels",
    "randomize_parameters",
    "segmentations",
    "trained_on_shuffled_labels",
    "with_weights",
    "write_segmentations",
]
