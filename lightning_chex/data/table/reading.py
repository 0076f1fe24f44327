"""A table of any origin as text: CSV with any separator, TSV, Excel, Parquet."""

import codecs
import csv
import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import check_regular, first_few
from lightning_chex.data.table.files import MOST_BYTES, intact
from lightning_chex.extras import EXTRAS, how_to_install

_SEPARATORS = ",;\t|"
_EXCEL = (".xlsx", ".xlsm", ".xls", ".ods")
_PARQUET = (".parquet", ".pq")
_ENGINES = {".xls": "xlrd", ".ods": "odfpy"}
_LOOKED_AT = 2**16
_MOST_COLUMNS = 2_000
_WHOLE = r"[+-]?\d+(\.0*)?"


def table_path(table: str | None, root: Path, name: str = "table") -> Path:
    """Return the path of a table, given from where the program runs or below the data root.

    Raises:
        DataError: it is not given, or there is no such file.
    """
    if table is None:
        raise DataError(f"no {name} is given: --data.{name} FILE names the CSV, TSV, Excel or Parquet file")
    path = Path(table).expanduser()
    below = path if path.is_absolute() else root / path
    for candidate in (path, below):
        if candidate.is_file():
            return candidate
    for candidate in (path, below):
        if candidate.is_dir():
            raise DataError(f"{name} is {table!r}, and {candidate} is a folder: give a file in it")
        if candidate.exists():
            raise DataError(f"{name} is {table!r}, and {candidate} is a pipe or a device: give a regular file")
        if candidate.is_symlink():
            raise DataError(f"{name} is {table!r}, and {candidate} is a link to a file that does not exist")
    raise DataError(f"{name} is {table!r}, which does not exist, here and in {root}: give the file")


SheetScore = Callable[[pd.DataFrame], int]
"""Number of values in a sheet that match image files."""


def read_text_table(path: Path, sheet: str | None = None, matches: SheetScore | None = None) -> pd.DataFrame:
    """Read a table as text.

    Separator, byte order mark, ends of lines, and a first column that only counts the rows are recognised.

    Args:
        path: ``.xlsx``, ``.xls`` or ``.ods``, ``.parquet``, or text in UTF-8, UTF-16 with its mark, or Windows-1252.
        sheet: of an Excel file; None takes the one with most ``matches``, and the first without them.
        matches: counts the values of a sheet that match image files.

    Returns:
        Every cell a string without blanks around it, empty where there is nothing. The index is the number of the row
        as a spreadsheet shows it: the header is row 1.

    Raises:
        DataError: it cannot be read, has no rows, a column without a name or of a name that is there twice, or a row
            with more cells than the header.
    """
    check_regular(path)
    kind = path.suffix.lower()
    if kind in _EXCEL or kind in _PARQUET:
        table = _from_engine(path, kind, sheet, matches)
    else:
        with intact(path, "a table with a header"):
            table = _read_csv(path)
    return _checked(table, path)


def whole_numbers(cells: pd.Series) -> pd.Series:
    """Take ``.0`` from ids that a spreadsheet has made decimals, ``123.0``, where all of them are whole numbers."""
    filled = cells[cells != ""]
    if not len(filled) or not filled.str.contains(".", regex=False).any() or not filled.str.fullmatch(_WHOLE).all():
        return cells
    return cells.str.replace(r"\.0*$", "", regex=True)


def numbers(cells: pd.Series) -> pd.Series:
    """Read numbers, with a comma for the decimals too; NaN where a cell is none."""
    return pd.to_numeric(cells.str.replace(",", ".", regex=False), errors="coerce").astype(np.float64)


def refuse_rows(path: Path, column: str, cells: pd.Series, wrong: pd.Series, reason: str) -> None:
    """Raise a DataError that names file, column, the first row and its value, if some rows are wrong."""
    if wrong.any():
        row = int(wrong[wrong].index[0])
        more = f" ({int(wrong.sum()):,} such rows)" if wrong.sum() > 1 else ""
        raise DataError(f"{path}, row {row}, column {column!r}: {cells[row]!r} {reason}{more}")


def _from_engine(path: Path, kind: str, sheet: str | None, matches: SheetScore | None) -> pd.DataFrame:
    excel = kind in _EXCEL
    engine = _ENGINES.get(kind, "openpyxl") if excel else "pyarrow"
    try:
        with intact(path, "an Excel table" if excel else "a Parquet table"):
            table = _read_excel(path, engine, sheet, matches) if excel else pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise DataError(
            f"{path} needs the package {engine}: {_installation(engine)}, or save the table as CSV (UTF-8)"
        ) from error
    except Exception as error:  # engines raise their own kinds on damaged files
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"cannot read {path}: {type(error).__name__}; download the file again, or save it as CSV"
        ) from error
    header = pd.Series([str(name) for name in table.columns], dtype=str)
    cells = table.set_axis(range(len(header)), axis=1).astype(object)
    cells = cells.where(cells.notna(), "").map(lambda cell: cell.isoformat() if hasattr(cell, "isoformat") else cell)
    return cells.astype(str).set_axis(header.tolist(), axis=1).set_axis(range(2, len(cells) + 2), axis=0)


def _installation(engine: str) -> str:
    return how_to_install(engine) if engine in EXTRAS else f"pip install {engine}"


def _read_excel(path: Path, engine: Any, sheet: str | None, matches: SheetScore | None) -> pd.DataFrame:
    named = engine.removesuffix("py") if engine == "odfpy" else engine
    with pd.ExcelFile(path, engine=named) as book:
        names = [str(name) for name in book.sheet_names]
        if sheet is not None and sheet not in names:
            raise DataError(f"{path} has no sheet {sheet!r}, which data.sheet names; it has {first_few(names, 12)}")
        wanted = names if sheet is None else [sheet]
        read = {name: pd.read_excel(book, sheet_name=name, dtype=str, keep_default_na=False) for name in wanted}
    if len(read) == 1:
        return read[wanted[0]]
    counts = {name: 0 if matches is None else matches(table) for name, table in read.items()}
    chosen = max(names, key=lambda name: counts[name])  # the first, where several match as well
    why = f"{counts[chosen]:,} of its values match files" if counts[chosen] else "the first one"
    rank_zero_warn(f"{path} has {len(names)} sheets; {chosen!r} is read ({why}); data.sheet names another")
    return read[chosen]


def _read_csv(path: Path) -> pd.DataFrame:
    if path.suffix != ".gz" and path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path} has more than {MOST_BYTES >> 20} MiB: give a table of the images alone")
    with path.open("rb") as file:
        start = file.read(4)
    packed = start[:2] == b"\x1f\x8b"
    if start[:2] == b"PK":
        raise ValueError("it is an archive, maybe an Excel file of another name")
    with gzip.open(path) if packed else path.open("rb") as file:
        start = file.read(_LOOKED_AT)
        size = len(start) + sum(map(len, iter(lambda: file.read(2**20), b""))) if packed else 0
    if size > MOST_BYTES:
        raise DataError(f"{path} holds more than {MOST_BYTES >> 20} MiB, packed: download the file again")
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        # a character may be cut at the end of what was read
        text = codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError as error:
        encoding = _windows_encoding(path, start, error)
        text = codecs.getincrementaldecoder(encoding)().decode(start)
    if "\0" in text:
        raise ValueError("it contains NUL bytes; it is not a text file")
    lines = text.splitlines() if len(start) < _LOOKED_AT else text.splitlines()[:-1]
    if not lines and text:
        raise ValueError(
            f"its first line, which should name the columns, is longer than {_LOOKED_AT:,} bytes: keep the columns "
            "that are needed"
        )
    if not any(line.strip() for line in lines[:1]):
        raise ValueError("its first line is empty: it should name the columns")
    separator = _separator(lines[:50])
    header = next(csv.reader(lines, delimiter=separator))
    if len(header) > _MOST_COLUMNS:
        raise ValueError(f"it has {len(header):,} columns, more than {_MOST_COLUMNS:,}: keep those that are needed")
    options: dict[str, Any] = {"encoding": encoding, "dtype": str, "keep_default_na": False, "header": None}
    names = range(len(header) + 1)  # one more, so that a longer row is seen and not cut
    table = pd.read_csv(
        path,
        sep=separator,
        names=names,
        index_col=False,
        skip_blank_lines=False,
        compression="gzip" if packed else None,
        **options,
    ).fillna("")
    table = table.set_axis(range(1, len(table) + 1), axis=0).iloc[1:]
    longer = table[table.columns[-1]].str.strip() != ""
    if longer.any():
        raise ValueError(
            f"row {longer.index[longer][0]} has more cells than the {len(header)} of the header, separated by "
            f"{separator!r}; put quotes around cells that hold the separator"
        )
    return table.iloc[:, :-1].set_axis(header, axis=1)


def _windows_encoding(path: Path, start: bytes, error: UnicodeDecodeError) -> str:
    """Return the encoding that spreadsheets of western languages write where it is not UTF-8, with a warning."""
    if error.encoding != "utf-8" or b"\0" in start:
        raise ValueError(f"{error.reason} at byte {error.start}: save it as UTF-8") from error
    rank_zero_warn(f"{path} is not UTF-8 and is read as Windows-1252 (Latin-1): check its accented letters")
    try:
        start.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _separator(lines: list[str]) -> str:
    """The separator that cuts the header into most columns, and the lines below into as many."""

    def fit(mark: str) -> tuple[int, int]:
        widths = [len(cells) for cells in csv.reader(lines, delimiter=mark) if cells]
        return (widths.count(widths[0]) if widths[0] > 1 else 0), widths[0]

    return max(_SEPARATORS, key=fit)


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    names = [str(name).strip().strip("\ufeff") for name in table.columns]
    table = table.set_axis(range(len(names)), axis=1)
    table = table.apply(lambda cells: cells.astype(str).str.strip())
    table = table[(table != "").any(axis=1)] if len(table) else table
    if table.empty:
        raise DataError(f"{path} has a header but no rows: download the file again")
    dropped = set(_without_name(table, names, path))
    kept = [place for place in range(len(names)) if place not in dropped]
    named = [names[place] for place in kept]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {', '.join(map(repr, twice))} more than once: rename or remove one")
    return table[kept].set_axis(named, axis=1)


def _without_name(table: pd.DataFrame, names: list[str], path: Path) -> Iterator[int]:
    """Columns to drop: those without name and content, and a first one that counts the rows."""
    for place, name in enumerate(names):
        if name and not re.fullmatch(r"Unnamed: \d+(\.\d+)?", name):
            continue
        cells = table[place]
        counts = pd.to_numeric(cells, errors="coerce").diff().dropna()
        if not (cells == "").all() and not (place == 0 and (counts == 1).all()):
            raise DataError(
                f"{path}: column {place + 1} has no name and holds {first_few(map(repr, cells))}: name it in the header"
            )
        yield place
