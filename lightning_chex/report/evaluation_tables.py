"""The results of an evaluation as tables for a logger: methods and controls, nothing of single images."""

from typing import Any

from lightning_chex.report.results import Results, without_nan

DIFFERENCE_COLUMNS = ["name", "less", "measure", "better", "value", "ci_low", "ci_high", "n", "patients"]
EVALUATION_COLUMNS = ["name", "kind", "measure", "better", "over", "value", "ci_low", "ci_high", "n"]


def evaluation_tables(results: Results) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Columns and rows of an evaluation, for ``LoggerAdapter.table``.

    Returns:
        Name of the table, which is the group of its measures, -> columns and rows, a row for each mean over maps, over
        classes and of a class; and ``differences``, a row for each pair of methods, or of a method and a control, and
        measure. Tables without a row are left out; measures without a group are in ``further``.
    """
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
    for key in results.keys_with_value():
        name = results.measure(key).group or "further"
        tables.setdefault(name, (list(EVALUATION_COLUMNS), []))[1].extend(_measure_rows(results, key))
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
