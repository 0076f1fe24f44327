"""Explanations and results as Weights & Biases shows them: pictures with boxes and masks as layers, and tables.

Pictures and rows are numbered instead of named: publishers put patient numbers into the names of images, which are not
uploaded. The PNG files beside the checkpoints begin with the same numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_chex.reporting.explanation import Explanation
from lightning_chex.reporting.pictures import overlay
from lightning_chex.reporting.results import Results, without_nan
from lightning_chex.thresholds import top_fraction_mask

PICTURE_LIMIT = 48
"""W&B slows down beyond some fifty pictures a step."""

LEVELS = {1: (0.20, "strongest 20 %"), 2: (0.05, "strongest 5 %"), 3: (0.01, "strongest 1 %")}
"""Mask value -> share of the pixels and its name."""

TABLE_COLUMNS = ["epoch", "number", "target", "prediction", "truth", "bits", "convergence", "iou"]
"""Of the table of single maps; see ``BITS_NOTE`` for what bits compare with."""

DIFFERENCE_COLUMNS = ["name", "less", "measure", "better", "value", "ci_low", "ci_high", "n", "patients"]
EVALUATION_COLUMNS = ["name", "kind", "measure", "better", "over", "value", "ci_low", "ci_high", "n"]
EVALUATION_TABLES = {
    "localization": (
        *("iou", "accuracy_iou", "accuracy_iobb", "pointing_game", "effective_heat_ratio", "mass_accuracy"),
        "rank_accuracy",
    ),
    "severity": ("severity_correlation", "zone_correlation"),
    "perturbation": (
        *("insertion_auc", "deletion_auc", "insertion_auc_half", "deletion_auc_half", "road", "road_morf", "road_lerf"),
        "sensitivity_n",
    ),
    "randomization": (*("randomization", "randomization_blank", "label_randomization", "label_randomization_blank"),),
}
"""Name of a table -> the measures in it, by key or by the part of the key before its slash."""


def image_arguments(explanations: Sequence[Explanation]) -> dict[str, list[Any]]:
    """Arguments of ``WandbLogger.log_image``: the overlays, their captions, the expert boxes, the map's levels."""
    shown = explanations[:PICTURE_LIMIT]
    # W&B keeps one list of names for all pictures: the last one given
    names = {e.target or 0: e.target_name for e in shown}
    return {
        "images": [overlay(e.image, e.saliency) for e in shown],
        "caption": [f"{number} | {e.caption}" for number, e in enumerate(shown)],
        "boxes": [{"expert": {"box_data": _boxes(e), "class_labels": names}} for e in shown],
        "masks": [
            {"map": {"mask_data": levels(e), "class_labels": {v: name for v, (_, name) in LEVELS.items()}}}
            for e in shown
        ],
    }


def table_rows(explanations: Sequence[Explanation], epoch: int) -> list[list[Any]]:
    """One row per explanation, in the order of ``TABLE_COLUMNS``."""
    return [
        [epoch, number, e.target_name, e.prediction, e.truth, e.bits, e.convergence, e.iou]
        for number, e in enumerate(explanations)
    ]


def log_table(
    logger: Any, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None
) -> None:
    """Log a table as a file of its run and nothing else, where ``WandbLogger.log_table`` makes an artifact of it too.

    An artifact leaves two copies of the table among W&B's staged files, which an offline run never removes (one is
    named by nothing, the other by its absolute path), a temporary folder until the program ends, and the last hundred
    tables in memory. The row of the history points to the file in the run's folder either way, and ``wandb sync``
    sends it from there, wherever the folder has been moved.

    Args:
        logger: the ``WandbLogger``, offline or not; where W&B is disabled nothing is written.
        key: the table's, and part of its file's name.
        columns: names.
        rows: a value for each column.
        step: the global step; None for a table that belongs to none.
    """
    import wandb  # here, since it is slow to load and most programs have no such logger

    run = logger.experiment
    if run.disabled:
        return
    table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    table.bind_to_run(run, key, run.step)  # what is bound already is not made an artifact when it is logged
    logger.log_metrics({key: table}, step=step)


def evaluation_tables(results: Results) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Columns and rows of an evaluation for ``log_table``: methods and controls, nothing of single images.

    Returns:
        Name of the table -> columns and rows, a row for each mean over maps, over classes and of a class; and
        ``differences``, a row for each pair of methods, or of a method and a control, and measure. Tables without a
        row are left out; measures of no known kind are in ``further``.
    """
    keys = {table: results.keys(*prefixes) for table, prefixes in EVALUATION_TABLES.items()}
    known = {key for shown in keys.values() for key in shown}
    keys["further"] = [key for key in results.keys(*results.measures) if key not in known]
    made = {table: [row for key in shown for row in _measure_rows(results, key)] for table, shown in keys.items()}
    tables = {table: (list(EVALUATION_COLUMNS), rows) for table, rows in made.items() if rows}
    if pairs := _difference_rows(results):
        tables["differences"] = (list(DIFFERENCE_COLUMNS), pairs)
    return tables


def _difference_rows(results: Results) -> list[list[Any]]:
    pairs = [
        (name, other)
        for place, name in enumerate(results.methods)
        for other in [*list(results.methods)[place + 1 :], *results.controls]
    ]
    return [
        [name, other, key, results.better(key), *without_nan([own.value, own.ci_low, own.ci_high]), own.n, own.patients]
        for key in results.measures
        for name, other in pairs
        if (own := results.difference(name, other, key)).known
    ]


def _measure_rows(results: Results, key: str) -> list[list[Any]]:
    rows = []
    for name in results.names:
        means = [
            ("all", results.estimate(name, key)),
            ("classes", results.estimate(name, key, over_classes=True)),
            *((each, results.estimate(name, key, class_name=each)) for each in results.class_names),
        ]
        kind = "method" if name in results.methods else "control"
        rows += [
            [name, kind, key, results.better(key), over, *without_nan([mean.value, mean.ci_low, mean.ci_high]), mean.n]
            for over, mean in means
            if mean.known
        ]
    return rows


def levels(explanation: Explanation) -> NDArray[np.uint8]:
    """The map in steps, uint8 (H, W): 0 outside, then the keys of ``LEVELS`` from wide to narrow."""
    mask = np.zeros(tuple(explanation.saliency.shape), np.uint8)
    for value, (share, _) in LEVELS.items():
        mask[top_fraction_mask(explanation.saliency[None], share)[0].numpy()] = value
    return mask


def _boxes(explanation: Explanation) -> list[dict[str, Any]]:
    return [
        {
            "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
            "domain": "pixel",
            "class_id": explanation.target or 0,
            "box_caption": explanation.target_name,
        }
        for x1, y1, x2, y2 in explanation.boxes.tolist()
    ]
