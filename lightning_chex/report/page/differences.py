"""Paired differences between methods, and between methods and controls: what “better” on the page is based on."""

from lightning_chex.estimates import Estimate
from lightning_chex.report.comparison import clear_of_zero, common_n, most_patients, withheld
from lightning_chex.report.page.views import Cell, Heading, Row, RowGroup, Section, Table, estimate_cell
from lightning_chex.report.results import Results

_UNFOLDED = 2
"""Number of tables that are open; the others are folded."""


def differences(results: Results) -> Section | None:
    """Build the section of paired differences; None without any."""
    keys = [key for key in results.keys_with("compared") if most_patients(results, key)]
    if not keys:
        return None
    tables = [_table(results, key) for key in keys]
    return Section("differences", "Paired differences", tables[:_UNFOLDED], tables[_UNFOLDED:])


def compared_title(results: Results, key: str) -> str:
    """The title of a measure, of an IoU with its threshold rule."""
    rule = results.measure(key).threshold_rule
    return f"IoU, threshold rule: {rule}" if rule else results.title(key)


def difference_cell(difference: Estimate, better: str | None, column_n: int) -> Cell:
    """Build the cell of a paired difference, bold where its interval excludes 0."""
    clear = clear_of_zero(difference, better) or clear_of_zero(-difference, better)
    return estimate_cell(difference, column_n, bold=clear)


def _table(results: Results, key: str) -> Table:
    rows = [name for name in results.methods if _measured(results, name, key)]
    columns = [name for name in [*results.controls, *rows] if any(results.difference(r, name, key).n for r in rows)]
    counts = {name: common_n(results.difference(row, name, key) for row in rows) for name in columns}
    better = results.better(key)
    title = compared_title(results, key)
    body = [
        Row(row, [difference_cell(results.difference(row, name, key), better, counts[name]) for name in columns])
        for row in rows
    ]
    sign = "negative" if better == "lower" else "positive"
    notes = [
        f"A {sign} value favours the row ({better} is better).",
        f"The differences rest on {most_patients(results, key):,} patients.",
    ]
    if why := withheld(results, key):
        notes.append(f"Nothing is set bold: {why}.")
    headings = [Heading(f"less {name}", f"n = {counts[name]:,}") for name in columns]
    return Table(f"{title}: the row less the column", headings, [RowGroup(body)], notes, summary=title)


def _measured(results: Results, name: str, key: str) -> bool:
    return any(results.difference(name, other, key).n for other in results.names if other != name)
