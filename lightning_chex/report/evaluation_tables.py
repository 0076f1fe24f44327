"""The results of an evaluation as tables for a logger: methods and controls, nothing of single images."""

from collections.abc import Iterator
from typing import Any

from lightning_chex.estimates import Estimate
from lightning_chex.report.results import Results, without_nan

DIFFERENCE_COLUMNS = ["name", "less", "measure", "better", "value", "ci_low", "ci_high", "n", "patients"]
EVALUATION_COLUMNS = ["name", "kind", "measure", "better", "over", "value", "ci_low", "ci_high", "n"]


def evaluation_tables(results: Results) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Return the results of an evaluation as tables for ``LoggerAdapter.table``.

    Returns:
        Name of the table -> columns and rows. A table holds the measures of one group (``further`` for those without a
        group): a row for each mean over maps, over classes and of a class. The table ``differences`` has a row for each
        measure and pair of methods, or of a method and a control. Tables without a row are left out.
    """
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
    for key in results.keys_with_value():
        name = results.measure(key).group or "further"
        _, rows = tables.setdefault(name, (list(EVALUATION_COLUMNS), []))
        rows += _measure_rows(results, key)
    difference_rows = _difference_rows(results)
    if difference_rows:
        tables["differences"] = (list(DIFFERENCE_COLUMNS), difference_rows)
    return tables


def _difference_rows(results: Results) -> list[list[Any]]:
    rows = []
    for key in results.measures:
        better = results.better(key)
        for name, other in _pairs(results):
            difference = results.difference(name, other, key)
            if difference.known:
                row = [name, other, key, better, *_numbers(difference), difference.n, difference.patients]
                rows.append(row)
    return rows


def _pairs(results: Results) -> Iterator[tuple[str, str]]:
    """Each method with every later method and every control."""
    methods = list(results.methods)
    for index, name in enumerate(methods):
        for other in (*methods[index + 1 :], *results.controls):
            yield name, other


def _measure_rows(results: Results, key: str) -> list[list[Any]]:
    rows = []
    for name in results.names:
        means = [
            ("all", results.estimate(name, key)),
            ("classes", results.estimate(name, key, over_classes=True)),
        ]
        for class_name in results.class_names:
            means.append((class_name, results.estimate(name, key, class_name=class_name)))
        kind = "method" if name in results.methods else "control"
        for over, mean in means:
            if mean.known:
                rows.append([name, kind, key, results.better(key), over, *_numbers(mean), mean.n])
    return rows


def _numbers(mean: Estimate) -> list[float | None]:
    """Value and interval, None in place of NaN."""
    numbers: list[float | None] = without_nan([mean.value, mean.ci_low, mean.ci_high])
    return numbers
