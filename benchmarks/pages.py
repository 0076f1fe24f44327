"""Markdown of the results pages: tables, estimates with intervals, and medians with ranges."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_chex.metrics import Estimate


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        head: titles of the columns.
        rows: one cell a column each.

    Raises:
        ValueError: a row has another number of cells than the head.
    """
    lines = [_line(head), "|---" * len(head) + "|"]
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"a row of {len(row)} cells below a head of {len(head)}: {row}")
        lines.append(_line(row))
    return lines


def table_of_records(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records with the same keys as a Markdown table, with the keys as its head."""
    if not records:
        return "(none)"
    columns = list(records[0])
    return "\n".join(table(columns, [[record[name] for name in columns] for record in records]))


def interval(value: float, low: float, high: float, digits: int = 3, signed: bool = False) -> str:
    """Return ``value (low to high)``; without an interval where its ends are NaN."""
    form = f"{'+' if signed else ''}.{digits}f"
    if math.isnan(low):
        return f"{value:{form}} (no interval)"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def estimate(found: Estimate, digits: int = 3, signed: bool = False) -> str:
    """Return an estimate with its 95 % interval as text."""
    return interval(found.value, found.ci_low, found.ci_high, digits, signed)


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Return ``median (least to most)`` of repeated measurements."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def anchor(title: str) -> str:
    """Return the fragment that GitHub gives a heading."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter == "-")


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
