"""The page that compares checkpoints: their values, their paired differences, and how well each predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_chex.estimates import Estimate
from lightning_chex.report.checkpoint_comparison import CheckpointComparison
from lightning_chex.report.comparison import MIN_PATIENTS, is_significantly_better, most_frequent_n
from lightning_chex.report.page.differences import compared_title, difference_cell
from lightning_chex.report.page.outcome import words
from lightning_chex.report.page.page import write_page
from lightning_chex.report.page.views import (
    Answers,
    Cell,
    Heading,
    Link,
    Row,
    RowGroup,
    Section,
    Table,
    estimate_cell,
    explained,
)
from lightning_chex.report.results import format_number

_OPEN_TABLES = 3
"""Number of tables of measures that are open; the others are folded."""

_DIRECTIONS = {
    "higher": "A positive difference favours the first of the two (higher is better).",
    "lower": "A negative difference favours the first of the two (lower is better).",
}

_SMALL_PRINT = "Small print: 95 % interval, bootstrap by patient; – stands for no value."


@dataclass(frozen=True)
class _Line:
    """Values of every checkpoint, and differences of every pair of them."""

    name: str
    values: Sequence[Estimate]
    differences: Sequence[Estimate]


def write_comparison(path: Path, comparison: CheckpointComparison) -> None:
    """Write a comparison as one HTML page without scripts and external resources; it links to each report."""
    sections = [_prediction(comparison), _measures(comparison), _by_class(comparison)]
    write_page(
        path,
        "comparison.html",
        title=f"Checkpoints compared: {words(list(comparison.results))}",
        sections=[section for section in sections if section is not None],
        links=[Link(f"report of {name}", _report_of(name)) for name in comparison.results],
        warnings=comparison.warnings(),
        outcome=_outcome(comparison),
    )


def _report_of(name: str) -> str:
    return f"{name}/report.html"


def _outcome(comparison: CheckpointComparison) -> list[Answers]:
    """State for each main measure by which methods' maps one checkpoint does better than another."""
    outcome = []
    for key in comparison.first.keys_shown_in("outcome"):
        if not comparison.first.measure(key).comparable:
            continue
        answers: list[str] = []
        for pair in comparison.pairs:
            answer = _answer(comparison, key, pair)
            # with few patients, several pairs have the same answer
            if answer is not None and answer not in answers:
                answers.append(answer)
        if answers:
            outcome.append(Answers(compared_title(comparison.first, key), answers))
    return outcome


def _answer(comparison: CheckpointComparison, key: str, pair: tuple[str, str]) -> str | None:
    """State which of two checkpoints a measure favours; None where they have no case in common."""
    differences = {}
    for name in comparison.methods:
        difference = comparison.difference(name, pair, key)
        if difference.known:
            differences[name] = difference
    if not differences:
        return None
    patients = max(difference.patients for difference in differences.values())
    if patients < MIN_PATIENTS:
        return f"{patients} patients, fewer than {MIN_PATIENTS}, so nothing is called better or worse."
    better = comparison.first.better(key)
    favour_first = [name for name, each in differences.items() if is_significantly_better(each, better)]
    favour_second = [name for name, each in differences.items() if is_significantly_better(-each, better)]
    unclear = [name for name in differences if name not in (*favour_first, *favour_second)]
    first, second = pair
    clauses = []
    if favour_first:
        clauses.append(f"{first} does better than {second} by the maps of {words(favour_first)}")
    if favour_second:
        clauses.append(f"{second} does better than {first} by the maps of {words(favour_second)}")
    if unclear:
        clauses.append(f"{first} and {second} show no sure difference by the maps of {words(unclear)}")
    return f"{'; '.join(clauses)}."


def _prediction(comparison: CheckpointComparison) -> Section:
    """Show how well each checkpoint predicts the images reported on."""
    titles = comparison.score_titles()
    rows = []
    for name, results in comparison.results.items():
        checkpoint: dict[str, Any] = dict(results.protocol.get("checkpoint") or {})
        cells = [Cell(format_number(comparison.scores[name].get(key))) for key in titles]
        cells.append(Cell(f"{comparison.common + comparison.alone[name]:,}"))
        cells.append(Cell(str(checkpoint.get("file", ""))))
        cells.append(Cell(str(checkpoint.get("sha256", ""))[:12]))
        rows.append(Row(name, cells, link=_report_of(name)))
    headings = [Heading(title) for title in (*titles.values(), "cases", "file", "SHA-256")]
    caption = "Each checkpoint on the images reported on"
    table = Table(caption, headings, [RowGroup(rows)], name_heading="checkpoint")
    return Section("prediction", "How well they predict", [table])


def _measures(comparison: CheckpointComparison) -> Section | None:
    compared = [key for key in comparison.first.keys_shown_in("compared") if key in comparison.measured]
    others = [key for key in comparison.measured if key in comparison.differences and key not in compared]
    keys = [*compared, *others]
    if not keys:
        return None
    tables = [_measure(comparison, key) for key in keys]
    return Section(
        "measures",
        "Measures and paired differences",
        tables[:_OPEN_TABLES],
        tables[_OPEN_TABLES:],
        explained(comparison.first, keys),
    )


def _measure(comparison: CheckpointComparison, key: str) -> Table:
    """Build the table of one measure: values of the checkpoints, then the differences of their pairs."""
    methods = [_line(comparison, name, key) for name in comparison.methods]
    controls = [_line(comparison, name, key) for name in comparison.controls]
    headings = _headings(comparison)
    counts = _counts([*methods, *controls], len(headings))
    better = comparison.first.better(key)
    groups = [RowGroup([_row(line, counts, better) for line in methods])]
    if controls:
        groups.append(RowGroup([_row(line, counts, better) for line in controls], "Controls", "controls"))
    headings_with_n = []
    for text, count in zip(headings, counts, strict=True):
        headings_with_n.append(Heading(text, f"n = {count:,}" if count else ""))
    notes = [_SMALL_PRINT]
    if better in _DIRECTIONS:
        notes.insert(0, _DIRECTIONS[better])
    return Table(compared_title(comparison.first, key), headings_with_n, groups, notes)


def _line(comparison: CheckpointComparison, name: str, key: str) -> _Line:
    values = [comparison.estimate(checkpoint, name, key) for checkpoint in comparison.results]
    differences = [comparison.difference(name, pair, key) for pair in comparison.pairs]
    return _Line(name, values, differences)


def _by_class(comparison: CheckpointComparison) -> Section | None:
    """Show the IoU class by class, a table for each method."""
    key = comparison.headline
    if key is None or not comparison.first.class_names or key not in comparison.differences:
        return None
    tables = [_class_table(comparison, key, name) for name in comparison.methods]
    return Section("classes", "IoU by class", tables[:1], tables[1:], template="checkpoint_classes")


def _class_table(comparison: CheckpointComparison, key: str, method: str) -> Table:
    """Build the table of one method's IoU: a class per row, with the AUROC of each checkpoint beside it."""
    rows = []
    for name in comparison.first.class_names:
        rows.append(_class_row(comparison, key, method, name, f"auroc/{name}", class_name=name))
    rows.append(_class_row(comparison, key, method, "mean over classes", "auroc", over_classes=True))
    headings = [Heading(text) for text in _headings(comparison)]
    headings += [Heading(f"AUROC of {name}") for name in comparison.results]
    return Table(
        f"{compared_title(comparison.first, key)}, by class: {method}",
        headings,
        [RowGroup([row for row in rows if row is not None])],
        [_DIRECTIONS["higher"], _SMALL_PRINT],
        name_heading="class",
        summary=f"By class: {method}",
    )


def _class_row(
    comparison: CheckpointComparison, key: str, method: str, title: str, score: str, **selection: Any
) -> Row | None:
    """Build one row of a method's IoU by class; None if no checkpoint has a value.

    Args:
        comparison: of the checkpoints.
        key: of the IoU.
        method: its name.
        title: of the row.
        score: key of the score beside the values.
        selection: of the mean, see ``Results.estimate``.
    """
    values = [comparison.estimate(checkpoint, method, key, **selection) for checkpoint in comparison.results]
    if not any(value.known for value in values):
        return None
    differences = [comparison.difference(method, pair, key, **selection) for pair in comparison.pairs]
    # 0: the headings of this table name no n, so every cell names its own
    counts = [0] * (len(values) + len(differences))
    row = _row(_Line(title, values, differences), counts, comparison.first.better(key))
    scores = [Cell(format_number(comparison.scores[checkpoint].get(score))) for checkpoint in comparison.results]
    return Row(title, [*row.cells, *scores])


def _headings(comparison: CheckpointComparison) -> list[str]:
    """Headings of the columns of values and of differences."""
    pairs = [f"{first} less {second}" for first, second in comparison.pairs]
    return [*comparison.results, *pairs]


def _counts(lines: Sequence[_Line], columns: int) -> list[int]:
    """The n that most estimates of each column have."""
    rows = [[*line.values, *line.differences] for line in lines]
    return [most_frequent_n(row[column] for row in rows) for column in range(columns)]


def _row(line: _Line, counts: Sequence[int], better: str | None) -> Row:
    value_counts = counts[: len(line.values)]
    difference_counts = counts[len(line.values) :]
    cells = []
    for value, count in zip(line.values, value_counts, strict=True):
        cells.append(estimate_cell(value, count))
    for difference, count in zip(line.differences, difference_counts, strict=True):
        cells.append(difference_cell(difference, better, count))
    return Row(line.name, cells)
