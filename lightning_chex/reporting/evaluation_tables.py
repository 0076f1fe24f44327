"""The results of an evaluation as tables for a logger: methods and controls, nothing of single images."""

from typing import Any

from lightning_chex.reporting.results import Results, without_nan

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


def evaluation_tables(results: Results) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Columns and rows of an evaluation, for ``Board.table``.

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
