"""Comparison of attribution methods on a trained model: maps, measures, controls, and results that can be cited.

The data passes through these stages, each with one name:

1. `Cases` (``lightning_chex.maps``): the explained targets of a batch of images, with the regions that their maps are
   compared with. A case is one target of one image.
2. `Attribution`: the maps of a method for these cases (``evaluator.py``). They are saved below ``maps``.
3. Values and curves: each measure of `MEASURES` computes one value per case (``localization.py``, ``perturbation.py``,
   ``randomization.py``).
4. Records: the values and curves of a case, appended to ``records/PART/METHOD.jsonl`` at once, so that an interrupted
   evaluation resumes (``records.py``). A part is what is measured together, such as ``localization``.
5. `Assembly`: the records of all parts put together, one `CaseRecord` per method and case; its rows are
   ``per_image.csv``, its means along an axis are `Curve`, written to ``curves.csv``.
6. `Summary`: mean of one measure over cases, over classes and per class, with bootstrap intervals; and the same of the
   paired difference of two methods (``summaries.py``).
7. `Results` (``lightning_chex.report``): all summaries and the protocol, written to ``results.json``.

`evaluate` (``run.py``) runs the five steps that do this: prepare, tune, measure, check, assemble. It returns
`Evaluated`, which holds the results with the parts that made them.
"""

from lightning_chex.evaluation.assembly import Assembly
from lightning_chex.evaluation.chexlocalize import TASKS, segmentations, write_segmentations
from lightning_chex.evaluation.localization import localize
from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.evaluation.methods import bottleneck_layer, choose_methods, line_up
from lightning_chex.evaluation.perturbation import Perturbation
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
