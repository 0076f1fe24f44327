"""Labels of a table: a column a class, findings as text, or scores; each with its unknown entries by a named policy."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few
from lightning_chex.data.table.columns import Columns, columns_of, is_text
from lightning_chex.data.table.reading import numbers, refuse_rows
from lightning_chex.data.table.words import CELLS, is_healthy, plain

Policy = Literal["ignore", "positive", "negative"]
"""What an entry counts as: left out of loss and scores (NaN), 1, or 0."""

_VALUES = {"ignore": np.nan, "positive": 1.0, "negative": 0.0}
_MARKS = "|;,；，、"  # no slash: it is a part of names such as Nodule/Mass
_MOST_CLASSES = 200


def check_policies(**policies: str) -> None:
    """Raise a ValueError for a policy that is none."""
    for name, policy in policies.items():
        if policy not in get_args(Policy):
            raise ValueError(f"{name} is {policy!r}: give {', '.join(get_args(Policy))}")


def class_names_of(table: pd.DataFrame, path: Path, columns: Columns, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes, those asked for or all there are; empty for scores.

    Raises:
        DataError: a name that the table does not know, or is there twice.
    """
    if columns_of(columns, "score"):
        if asked:
            raise DataError(f"classes is {list(asked)}, but {path} is read for its score: leave classes out")
        return ()
    known = _findings(table, columns) if is_text(table, columns) else columns_of(columns, "labels")
    names = list(known) if asked is None else list(asked)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"classes names {first_few(map(repr, unknown))}, which {path} does not know: it has {first_few(known, 20)}"
        )
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path}: the classes are {names}: give at least one, and each once")
    if len(names) > _MOST_CLASSES:
        raise DataError(
            f"{path}, column {columns.labels!r}, has {len(names)} different findings, such as {first_few(names, 5)}: "
            "name those to learn by --data.classes '[A,B]', or another column by --data.columns.labels"
        )
    return tuple(names)


def class_labels(
    table: pd.DataFrame, path: Path, columns: Columns, names: Sequence[str], uncertain: Policy, missing: Policy
) -> np.ndarray:
    """Read the labels of all rows.

    Args:
        table: from ``read_text_table``.
        path: of the table, for messages.
        columns: with ``labels``.
        names: of the K classes.
        uncertain: what -1, ``u`` and their like count as.
        missing: what an empty cell counts as; of findings as text it is that of all classes.

    Returns:
        float32 (N, K), 0, 1, or NaN where an entry is ignored.

    Raises:
        DataError: a cell of a class column that says neither yes nor no.
    """
    if is_text(table, columns):
        cells = table[str(columns.labels)]
        found = [set(_cut(cell, _mark(cells))) for cell in cells.unique()]
        rows = {cell: [float(name in own) for name in names] for cell, own in zip(cells.unique(), found, strict=True)}
        for cell in rows:
            if CELLS.get(cell.lower()) == "missing" and not is_healthy(cell):
                rows[cell] = [_VALUES[missing]] * len(names)
        return np.array([rows[cell] for cell in cells], dtype=np.float32).reshape(-1, len(names))
    values = {"positive": 1.0, "negative": 0.0, "uncertain": _VALUES[uncertain], "missing": _VALUES[missing]}
    labels = np.empty((len(table), len(names)), dtype=np.float32)
    for k, name in enumerate(names):
        said = table[name].map({cell: CELLS.get(cell.lower()) for cell in table[name].unique()})
        refuse_rows(path, name, table[name], said.isna(), "is no label: give 1, 0, -1 (uncertain) or nothing")
        labels[:, k] = said.map(values)
    return labels


def severity_scores(table: pd.DataFrame, path: Path, columns: Columns) -> np.ndarray:
    """Read the scores of all rows, float32 (N, S); NaN where a cell is empty.

    Raises:
        DataError: a score that is no number.
    """
    names = columns_of(columns, "score")
    scores = np.empty((len(table), len(names)), dtype=np.float32)
    for k, name in enumerate(names):
        values = numbers(table[name])
        told = table[name].map({cell: CELLS.get(cell.lower()) != "missing" for cell in table[name].unique()})
        wrong = told & ~np.isfinite(values)
        refuse_rows(
            path, name, table[name], wrong, "is no number: correct it, or empty the cell to leave the image out"
        )
        scores[:, k] = values.where(told)
    return scores


def unknown_words(table: pd.DataFrame, columns: Columns, names: Sequence[str]) -> list[str]:
    """Findings of the text that are none of the classes, most frequent first."""
    if not is_text(table, columns):
        return []
    return [name for name in _findings(table, columns) if name not in names]


def _findings(table: pd.DataFrame, columns: Columns) -> list[str]:
    return list(counted_findings(table[str(columns.labels)]))


def counted_findings(cells: pd.Series) -> dict[str, int]:
    """Count the findings of a column of text, most frequent first, without words for none."""
    mark = _mark(cells)
    counts: dict[str, int] = {}
    for cell, count in cells.value_counts().items():
        for name in _cut(str(cell), mark):
            counts[name] = counts.get(name, 0) + int(count)
    return {name: counts[name] for name in sorted(counts, key=lambda name: (-counts[name], name))}


def _cut(cell: str, mark: str) -> list[str]:
    """The findings of a cell, without words for none."""
    pieces = re.sub(r"^[\[({]|[\])}]$", "", cell).split(mark) if mark else [cell]
    words = [piece.strip().strip("'\"").strip() for piece in pieces]
    return [word for word in words if plain(word) and not is_healthy(word) and CELLS.get(word.lower()) != "missing"]


def _mark(cells: pd.Series) -> str:
    """Return the separator of findings, the first of the usual ones that occurs; empty if none does."""
    found = cells.unique()
    return next((mark for mark in _MARKS if any(mark in cell for cell in found)), "")
