"""Paired differences between methods, and between methods and controls: what “better” on the page is based on."""

from collections.abc import Iterable

from lightning_chex.estimates import Estimate
from lightning_chex.report.comparison import (
    is_significantly_better,
    most_frequent_n,
    most_patients,
    reason_not_comparable,
)
from lightning_chex.report.page.views import Cell, Heading, Row, RowGroup, Section, Table, estimate_cell
from lightning_chex.report.results import Results

_OPEN_TABLES = 2
"""Number of tables that are open; the others are folded."""


def differences(results: Results) -> Section | None:
    """Build the section of paired differences; None without any."""
    keys = [key for key in results.keys_shown_in("compared") if most_patients(results, key)]
    if not keys:
        return None
    tables = [_table(results, key) for key in keys]
    return Section("differences", "Paired differences", tables[:_OPEN_TABLES], tables[_OPEN_TABLES:])


def compared_title(results: Results, key: str) -> str:
    """Title of a measure; of an IoU with its threshold rule."""
    rule = results.measure(key).threshold_rule
    if rule:
        return f"IoU, threshold rule: {rule}"
    return results.title(key)


def difference_cell(difference: Estimate, better: str | None, column_n: int) -> Cell:
    """Build the cell of a paired difference, bold where its interval excludes 0."""
    favours_first = is_significantly_better(difference, better)
    favours_second = is_significantly_better(-difference, better)
    return estimate_cell(difference, column_n, bold=favours_first or favours_second)


def _table(results: Results, key: str) -> Table:
    rows = [name for name in results.methods if _has_difference(results, name, results.names, key)]
    columns = [name for name in (*results.controls, *rows) if _has_difference(results, name, rows, key)]
    counts = {name: most_frequent_n(results.difference(row, name, key) for row in rows) for name in columns}
    better = results.better(key)
    title = compared_title(results, key)
    body = []
    for row in rows:
        cells = []
        for column in columns:
            cells.append(difference_cell(results.difference(row, column, key), better, counts[column]))
        body.append(Row(row, cells))
    sign = "negative" if better == "lower" else "positive"
    notes = [
        f"A {sign} value favours the row ({better} is better).",
        f"The differences rest on {most_patients(results, key):,} patients.",
    ]
    reason = reason_not_comparable(results, key)
    if reason is not None:
        notes.append(f"Nothing is set bold: {reason}.")
    headings = [Heading(f"less {name}", f"n = {counts[name]:,}") for name in columns]
    return Table(f"{title}: the row less the column", headings, [RowGroup(body)], notes, summary=title)


def _has_difference(results: Results, name: str, others: Iterable[str], key: str) -> bool:
    """Return whether a measure has a paired difference between a method or control and any of the others."""
    return any(results.difference(name, other, key).n for other in others if other != name)
