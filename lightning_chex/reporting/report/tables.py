"""Tables of measures: one row a method, controls in a group below them, the paper's figures set apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeGuard
from xml.etree.ElementTree import Element

from lightning_chex.estimates import Estimate
from lightning_chex.reporting.comparison import best_method, common_n, judged, withheld
from lightning_chex.reporting.report import paper
from lightning_chex.reporting.report.markup import element
from lightning_chex.reporting.results import Results, number


@dataclass(frozen=True)
class Column:
    """One measure in a table.

    Attributes:
        heading: above its values.
        key: of the measure.
        group: a heading above neighbouring columns that share it.
        class_name: the class whose mean it is; None for the mean over all maps.
        over_classes: it is the mean over classes.
        marked: whether the best method is marked.
    """

    heading: str
    key: str
    group: str = ""
    class_name: str | None = None
    over_classes: bool = False
    marked: bool = True

    @property
    def of(self) -> dict[str, Any]:
        """Arguments of ``Results.estimate`` that select its means."""
        return {"class_name": self.class_name, "over_classes": self.over_classes}


@dataclass(frozen=True)
class PaperColumn:
    """The paper's figures, by method.

    Attributes:
        values: method or control -> figure.
        heading: above its values.
        group: as of a ``Column``.
        noted: names whose figure carries an asterisk.
    """

    values: Mapping[str, float]
    heading: str = paper.HEADING
    group: str = ""
    noted: Sequence[str] = ()


@dataclass(frozen=True)
class PaperRow:
    """A row of figures from the paper, by index of the column."""

    name: str
    values: Mapping[int, float] = field(default_factory=dict)


def measure_table(
    results: Results,
    caption: str,
    columns: Sequence[Column | PaperColumn],
    *,
    paper_rows: Sequence[PaperRow] = (),
    notes: Sequence[str] = (),
) -> Element:
    """Write a table of means, and below it the meaning of its marks."""
    marks = [_marks(results, column) for column in columns]
    counts = [
        0
        if isinstance(column, PaperColumn)
        else common_n(results.estimate(name, column.key, **column.of) for name in results.names)
        for column in columns
    ]
    rows = [_row(results, name, columns, marks, counts) for name in results.methods]
    bodies = [element("tbody", *rows)]
    width = str(len(columns) + 1)
    if results.controls:
        head = _band("Controls: maps that know nothing of the network", width)
        below = [_row(results, name, columns, marks, counts) for name in results.controls]
        bodies.append(element("tbody", element("tr", head), *below, class_="controls"))
    if paper_rows:
        head = _band(f"From the {paper.HEADING}: not comparable", width)
        bodies.append(
            element("tbody", element("tr", head), *(_paper_row(row, columns) for row in paper_rows), class_="paper")
        )
    table = element("table", element("thead", *_head(columns, counts)), *bodies)
    return scrolling(caption, table, [*_signs(results, columns, marks), *notes])


def scrolling(caption: str, table: Element, notes: Sequence[str]) -> Element:
    """A table that scrolls by itself, with its caption above and notes below it."""
    return element(
        "div",
        # outside the table, which may be wider than the screen
        element("p", caption, class_="caption"),
        element("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption),
        element("p", " ".join(notes), class_="note"),
        class_="table",
    )


def _band(words: str, width: str) -> Element:
    """A heading over all columns that stays visible where the table scrolls."""
    return element("th", element("span", words), colspan=width, scope="rowgroup")


def _marks(results: Results, column: Column | PaperColumn) -> tuple[frozenset[str], bool]:
    if not _markable(column, results):
        return frozenset(), False
    return best_method(results, column.key, over_classes=column.over_classes)


def _markable(column: Column | PaperColumn, results: Results) -> TypeGuard[Column]:
    """Whether a best method may be marked: not without controls, nor for single classes, many of few patients each."""
    return (
        isinstance(column, Column)
        and column.marked
        and column.class_name is None
        and results.better(column.key) is not None
        and bool(judged(results, column.key, over_classes=column.over_classes))
    )


def _head(columns: Sequence[Column | PaperColumn], counts: Sequence[int]) -> list[Element]:
    grouped = any(column.group for column in columns)
    rows = []
    if grouped:
        spans = [(group, list(run)) for group, run in groupby(columns, key=lambda column: column.group)]
        cells = [element("th", group, colspan=len(run), scope="colgroup", class_="group") for group, run in spans]
        rows.append(element("tr", element("th", "", class_="name"), *cells))
    cells = [
        element(
            "th",
            column.heading,
            element("small", f"n = {count:,}") if count else None,
            scope="col",
            class_="paper" if isinstance(column, PaperColumn) else None,
        )
        for column, count in zip(columns, counts, strict=True)
    ]
    rows.append(element("tr", element("th", "method", scope="col", class_="name"), *_divided(cells, columns)))
    return rows


def _row(
    results: Results,
    name: str,
    columns: Sequence[Column | PaperColumn],
    marks: Sequence[tuple[frozenset[str], bool]],
    counts: Sequence[int],
) -> Element:
    cells = []
    for column, (best, above), count in zip(columns, marks, counts, strict=True):
        if isinstance(column, PaperColumn):
            sign = "*" if name in column.noted else ""
            cells.append(element("td", f"{_published(column.values.get(name))}{sign}", class_="paper"))
        else:
            cells.append(_cell(results.estimate(name, column.key, **column.of), name in best, above, count))
    return element("tr", element("th", name, scope="row", class_="name"), *_divided(cells, columns))


def _cell(mean: Estimate, best: bool, above: bool, count: int) -> Element:
    value = number(mean.value)
    if not mean.known:
        return element("td", value, class_="none")
    small = interval(mean) + (f", n = {mean.n:,}" if mean.n != count else "")
    shown = element("b", value) if best and above else element("span", value, "†" if best else None)
    return element("td", shown, element("small", small))


def interval(mean: Estimate) -> str:
    """Both ends of the interval, as text."""
    if not mean.has_interval:
        return "no interval"
    # a dash beside a minus is hard to read
    joint = "–" if mean.ci_low >= 0 else " to "
    return f"{number(mean.ci_low)}{joint}{number(mean.ci_high)}"


def _paper_row(row: PaperRow, columns: Sequence[Column | PaperColumn]) -> Element:
    cells = [element("td", _published(row.values.get(k)), class_="paper") for k in range(len(columns))]
    return element("tr", element("th", row.name, scope="row", class_="name"), *_divided(cells, columns))


def _divided(cells: Sequence[Element], columns: Sequence[Column | PaperColumn]) -> Sequence[Element]:
    """Mark the first cell of each group, which has a line before it."""
    for cell, column, before in zip(cells[1:], columns[1:], columns[:-1], strict=True):
        if column.group != before.group:
            cell.set("class", f"{cell.get('class', '')} first".strip())
    return cells


def _published(value: float | None) -> str:
    """A published figure with its own digits, at least three decimals."""
    return "–" if value is None else f"{value:.4f}".removesuffix("0")


def _signs(
    results: Results, columns: Sequence[Column | PaperColumn], marks: Sequence[tuple[frozenset[str], bool]]
) -> list[str]:
    said = ["Small print: 95 % interval, bootstrap by patient; – stands for no value."]
    if any(best and above for best, above in marks):
        said.append("Bold: the best method, better than every control by the paired differences.")
    if any(best and not above for best, above in marks):
        said.append("† the best method, but not better than every control by the paired differences.")
    if not results.controls:
        said.append("No control was evaluated, so no value is set bold.")
    reasons = [withheld(results, column.key) for column in columns if _markable(column, results)]
    if any(reasons):
        said.append(f"Not marked: {'; '.join(dict.fromkeys(filter(None, reasons)))}.")
    return said
