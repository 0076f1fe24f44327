"""Tables for spreadsheets: no cell of them is taken for a formula, and what was written is read back."""

import csv
import io
import re
from collections.abc import Iterable

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_MARKED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+|inf|nan)([eE][+-]?\d+)?")


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    r"""Write rows as lines of CSV.

    A spreadsheet runs what begins with ``=``, ``+``, ``-`` or ``@``, and file names can begin like that. Such a cell,
    unless it is a number, gets an apostrophe before it, as OWASP advises ("CSV Injection"); `csv_rows` takes it off.

    >>> csv_lines([["=1+1", -0.5, "a,b"]])
    '\'=1+1,-0.5,"a,b"\n'
    """
    return "".join(f"{_line(row)}\n" for row in rows)


def csv_rows(lines: str) -> list[list[str]]:
    """Read what `csv_lines` has written."""
    return [[plain_cell(cell) for cell in row] for row in csv.reader(io.StringIO(lines, newline=""))]


def plain_cell(cell: str) -> str:
    """Return a cell of `csv_lines` as it was before."""
    return cell[1:] if _MARKED.match(cell) else cell


def _line(row: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([_shown(cell) for cell in row])  # so that both marks are quoted
    return line.getvalue().removesuffix("\r\n")


def _shown(cell: object) -> object:
    risky = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if risky else cell
