"""Tables of measures: one row a method, controls in a group below them, the paper's figures set apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TypeGuard

from lightning_chex.estimates import Estimate
from lightning_chex.report.comparison import best_methods, controls_with_value, most_frequent_n, reason_not_comparable
from lightning_chex.report.page import paper
from lightning_chex.report.page.views import Cell, Heading, Row, RowGroup, Table, estimate_cell
from lightning_chex.report.results import Results


@dataclass(frozen=True)
class Column:
    """One measure in a table.

    Attributes:
        heading: above its values.
        key: of the measure.
        group: a heading above neighbouring columns that share it.
        class_name: the class whose mean it is; None for the mean over all maps.
        over_classes: it is the mean over classes.
    """

    heading: str
    key: str
    group: str = ""
    class_name: str | None = None
    over_classes: bool = False

    @classmethod
    def of_measure(cls, results: Results, key: str) -> "Column":
        """Build the column of a measure as its declaration says."""
        measure = results.measure(key)
        return cls(measure.heading or results.title(key), key, measure.heading_group)

    def estimate(self, results: Results, name: str) -> Estimate:
        """Return the mean of a method or control that this column shows."""
        return results.estimate(name, self.key, class_name=self.class_name, over_classes=self.over_classes)

    def has_value(self, results: Results) -> bool:
        """Return whether any method or control has a value in this column."""
        return results.has(self.key, class_name=self.class_name, over_classes=self.over_classes)


@dataclass(frozen=True)
class PaperColumn:
    """The paper's figures, by method.

    Attributes:
        values: method or control -> figure.
        heading: above its values.
        group: see `Column`.
        with_asterisk: names whose figure carries an asterisk.
    """

    values: Mapping[str, float]
    heading: str = paper.HEADING
    group: str = ""
    with_asterisk: Sequence[str] = ()


@dataclass(frozen=True)
class PaperRow:
    """A row of figures from the paper.

    Attributes:
        name: of the row.
        values: index of the column -> figure.
    """

    name: str
    values: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Marks:
    """The best methods of a column, and whether they do better than every control."""

    best: frozenset[str] = frozenset()
    above_controls: bool = False


AnyColumn = Column | PaperColumn


def measure_table(
    results: Results,
    caption: str,
    columns: Sequence[AnyColumn],
    *,
    paper_rows: Sequence[PaperRow] = (),
    notes: Sequence[str] = (),
    summary: str = "",
) -> Table:
    """Build a table of means; its notes explain the marks.

    Args:
        results: of the evaluation.
        caption: above the table.
        columns: of the table, in order.
        paper_rows: rows below the others with figures of the paper.
        notes: further sentences below the table.
        summary: text to click on where the table is folded.
    """
    marks = [_marks(results, column) for column in columns]
    counts = [_column_n(results, column) for column in columns]
    rows = {name: _row(results, name, columns, marks, counts) for name in results.names}
    groups = [RowGroup([rows[name] for name in results.methods])]
    if results.controls:
        title = "Controls: maps that use no knowledge of the network"
        groups.append(RowGroup([rows[name] for name in results.controls], title, "controls"))
    if paper_rows:
        published = [_paper_row(row, columns) for row in paper_rows]
        groups.append(RowGroup(published, f"From the {paper.HEADING}: not comparable", "paper"))
    return Table(
        caption,
        _headings(columns, counts),
        groups,
        [*_notes(results, columns, marks), *notes],
        _heading_groups(columns),
        summary=summary,
    )


def _column_n(results: Results, column: AnyColumn) -> int:
    """The n that most means of a column have; 0 for the paper's."""
    if isinstance(column, PaperColumn):
        return 0
    return most_frequent_n(column.estimate(results, name) for name in results.names)


def _marks(results: Results, column: AnyColumn) -> _Marks:
    if not _markable(column, results):
        return _Marks()
    return _Marks(*best_methods(results, column.key, over_classes=column.over_classes))


def _markable(column: AnyColumn, results: Results) -> TypeGuard[Column]:
    """Return whether the best method of a column may be marked."""
    # the paper's figures are of other data, and a single class has too few patients
    if not isinstance(column, Column) or column.class_name is not None:
        return False
    if not results.measure(column.key).comparable or results.better(column.key) is None:
        return False
    return bool(controls_with_value(results, column.key, over_classes=column.over_classes))


def _headings(columns: Sequence[AnyColumn], counts: Sequence[int]) -> list[Heading]:
    headings = []
    for index, (column, count) in enumerate(zip(columns, counts, strict=True)):
        css = "paper" if isinstance(column, PaperColumn) else ""
        small = f"n = {count:,}" if count else ""
        headings.append(Heading(column.heading, small, _divided(css, columns, index)))
    return headings


def _heading_groups(columns: Sequence[AnyColumn]) -> list[Heading]:
    """Headings that span neighbouring columns of one group; none if no column has a group."""
    if not any(column.group for column in columns):
        return []
    headings = []
    for group, neighbours in groupby(columns, key=lambda column: column.group):
        headings.append(Heading(group, css="group", span=len(list(neighbours))))
    return headings


def _row(
    results: Results, name: str, columns: Sequence[AnyColumn], marks: Sequence[_Marks], counts: Sequence[int]
) -> Row:
    cells = []
    for index, (column, mark, count) in enumerate(zip(columns, marks, counts, strict=True)):
        if isinstance(column, PaperColumn):
            cell = _paper_cell(column, name)
        else:
            cell = _marked_cell(column.estimate(results, name), name, mark, count)
        cells.append(replace(cell, css=_divided(cell.css, columns, index)))
    return Row(name, cells)


def _paper_cell(column: PaperColumn, name: str) -> Cell:
    sign = "*" if name in column.with_asterisk else ""
    return Cell(_published(column.values.get(name)), sign=sign, css="paper")


def _marked_cell(mean: Estimate, name: str, mark: _Marks, column_n: int) -> Cell:
    """Build the cell of a mean: bold for a best method above every control, with a dagger for another best method."""
    if name not in mark.best:
        return estimate_cell(mean, column_n)
    if mark.above_controls:
        return estimate_cell(mean, column_n, bold=True)
    return estimate_cell(mean, column_n, sign="†")


def _paper_row(row: PaperRow, columns: Sequence[AnyColumn]) -> Row:
    cells = []
    for index in range(len(columns)):
        cells.append(Cell(_published(row.values.get(index)), css=_divided("paper", columns, index)))
    return Row(row.name, cells)


def _divided(css: str, columns: Sequence[AnyColumn], index: int) -> str:
    """Add the class of the first column of a group, which has a line before it."""
    starts_group = index > 0 and columns[index].group != columns[index - 1].group
    if starts_group:
        return f"{css} first".strip()
    return css


def _published(value: float | None) -> str:
    """Format a published figure with the paper's digits, three or four decimals; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.4f}".removesuffix("0")


def _notes(results: Results, columns: Sequence[AnyColumn], marks: Sequence[_Marks]) -> list[str]:
    notes = ["Small print: 95 % interval, bootstrap by patient; – stands for no value."]
    if any(mark.best and mark.above_controls for mark in marks):
        notes.append("Bold: the best method, better than every control by the paired differences.")
    if any(mark.best and not mark.above_controls for mark in marks):
        notes.append("† the best method, but not better than every control by the paired differences.")
    if not results.controls:
        notes.append("No control was evaluated, so no value is set bold.")
    reasons = []
    for column in columns:
        if _markable(column, results):
            reason = reason_not_comparable(results, column.key)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
    if reasons:
        notes.append(f"Not marked: {'; '.join(reasons)}.")
    return notes
