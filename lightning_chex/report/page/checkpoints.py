"""The page that compares checkpoints: their values, their paired differences, and how well each predicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_chex.estimates import Estimate
from lightning_chex.report.checkpoint_comparison import CheckpointComparison, score_titles
from lightning_chex.report.comparison import MIN_PATIENTS, clear_of_zero, common_n
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
from lightning_chex.report.results import number

_UNFOLDED = 3
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


def write_comparison(path: Path, found: CheckpointComparison) -> None:
    """Write a comparison as one HTML page without scripts and external resources; it links to each report."""
    sections = [_prediction(found), _measures(found), _by_class(found)]
    write_page(
        path,
        "comparison.html",
        title=f"Checkpoints compared: {words(list(found.results))}",
        sections=[section for section in sections if section is not None],
        links=[Link(f"report of {name}", _report_of(name)) for name in found.results],
        warnings=found.warnings(),
        outcome=_outcome(found),
    )


def _report_of(name: str) -> str:
    return f"{name}/report.html"


def _outcome(found: CheckpointComparison) -> list[Answers]:
    """Say for each main measure by which methods' maps one checkpoint does better than another."""
    outcome = []
    for key in found.first.keys_with("outcome"):
        if not found.first.measure(key).comparable:
            continue
        answers = [answer for pair in found.pairs if (answer := _answer(found, key, pair))]
        if answers:
            outcome.append(Answers(compared_title(found.first, key), list(dict.fromkeys(answers))))
    return outcome


def _answer(found: CheckpointComparison, key: str, pair: tuple[str, str]) -> str | None:
    """Say which of two checkpoints a measure favours; None where they have no case in common."""
    differences = {name: own for name in found.methods if (own := found.difference(name, pair, key)).known}
    if not differences:
        return None
    patients = max(own.patients for own in differences.values())
    if patients < MIN_PATIENTS:
        return f"{patients} patients, fewer than {MIN_PATIENTS}, so nothing is called better or worse."
    better = found.first.better(key)
    more = [name for name, own in differences.items() if clear_of_zero(own, better)]
    less = [name for name, own in differences.items() if clear_of_zero(-own, better)]
    apart = [name for name in differences if name not in more + less]
    parts = []
    if more:
        parts.append(f"{pair[0]} does better than {pair[1]} by the maps of {words(more)}")
    if less:
        parts.append(f"{pair[1]} does better than {pair[0]} by the maps of {words(less)}")
    if apart:
        parts.append(f"{pair[0]} and {pair[1]} show no sure difference by the maps of {words(apart)}")
    return f"{'; '.join(parts)}."


def _prediction(found: CheckpointComparison) -> Section:
    """Show how well each checkpoint predicts the images reported on."""
    titles = {key: title for scores in found.scores.values() for key, title in score_titles(scores).items()}
    rows = []
    for name, results in found.results.items():
        checkpoint: dict[str, Any] = dict(results.protocol.get("checkpoint") or {})
        cells = [Cell(number(found.scores[name].get(key))) for key in titles]
        cells.append(Cell(f"{found.common + found.alone[name]:,}"))
        cells.append(Cell(str(checkpoint.get("file", ""))))
        cells.append(Cell(str(checkpoint.get("sha256", ""))[:12]))
        rows.append(Row(name, cells, link=_report_of(name)))
    headings = [Heading(title) for title in (*titles.values(), "cases", "file", "SHA-256")]
    caption = "Each checkpoint on the images reported on"
    table = Table(caption, headings, [RowGroup(rows)], name_heading="checkpoint")
    return Section("prediction", "How well they predict", [table])


def _measures(found: CheckpointComparison) -> Section | None:
    compared = [key for key in found.first.keys_with("compared") if key in found.measured]
    others = [key for key in found.measured if key in found.differences and key not in compared]
    keys = [*compared, *others]
    if not keys:
        return None
    tables = [_measure(found, key) for key in keys]
    return Section(
        "measures",
        "Measures and paired differences",
        tables[:_UNFOLDED],
        tables[_UNFOLDED:],
        explained(found.first, keys),
    )


def _measure(found: CheckpointComparison, key: str) -> Table:
    def line(name: str) -> _Line:
        values = [found.estimate(checkpoint, name, key) for checkpoint in found.results]
        return _Line(name, values, [found.difference(name, pair, key) for pair in found.pairs])

    methods = [line(name) for name in found.methods]
    controls = [line(name) for name in found.controls]
    counts = _counts([*methods, *controls], len(found.results) + len(found.pairs))
    better = found.first.better(key)
    groups = [RowGroup([_row(each, counts, better) for each in methods])]
    if controls:
        groups.append(RowGroup([_row(each, counts, better) for each in controls], "Controls", "controls"))
    headings = [
        Heading(text, f"n = {count:,}" if count else "") for text, count in zip(_headings(found), counts, strict=True)
    ]
    notes = [note for note in (_DIRECTIONS.get(better or ""), _SMALL_PRINT) if note]
    return Table(compared_title(found.first, key), headings, groups, notes)


def _by_class(found: CheckpointComparison) -> Section | None:
    """Show the IoU class by class, a table for each method."""
    key = found.headline
    if key is None or not found.first.class_names or key not in found.differences:
        return None
    tables = [_class_table(found, key, name) for name in found.methods]
    return Section("classes", "IoU by class", tables[:1], tables[1:], template="checkpoint_classes")


def _class_table(found: CheckpointComparison, key: str, method: str) -> Table:
    mean = "mean over classes"
    selections: dict[str, Mapping[str, Any]] = {name: {"class_name": name} for name in found.first.class_names}
    selections[mean] = {"over_classes": True}
    rows = []
    for name, selection in selections.items():
        values = [found.estimate(checkpoint, method, key, **selection) for checkpoint in found.results]
        less = [found.difference(method, pair, key, **selection) for pair in found.pairs]
        if not any(value.known for value in values):
            continue
        row = _row(_Line(name, values, less), [0] * (len(values) + len(less)), found.first.better(key))
        score = "auroc" if name == mean else f"auroc/{name}"
        scores = [Cell(number(found.scores[checkpoint].get(score))) for checkpoint in found.results]
        rows.append(Row(name, [*row.cells, *scores]))
    headings = [Heading(text) for text in (*_headings(found), *(f"AUROC of {name}" for name in found.results))]
    return Table(
        f"{compared_title(found.first, key)}, by class: {method}",
        headings,
        [RowGroup(rows)],
        [_DIRECTIONS["higher"], _SMALL_PRINT],
        name_heading="class",
        summary=f"By class: {method}",
    )


def _headings(found: CheckpointComparison) -> list[str]:
    return [*found.results, *(f"{first} less {second}" for first, second in found.pairs)]


def _counts(lines: Sequence[_Line], columns: int) -> list[int]:
    """The n that most estimates of each column have."""
    rows = [[*line.values, *line.differences] for line in lines]
    return [common_n(row[column] for row in rows) for column in range(columns)]


def _row(line: _Line, counts: Sequence[int], better: str | None) -> Row:
    values = len(line.values)
    cells = [estimate_cell(value, count) for value, count in zip(line.values, counts[:values], strict=True)]
    cells += [
        difference_cell(difference, better, count)
        for difference, count in zip(line.differences, counts[values:], strict=True)
    ]
    return Row(line.name, cells)
