"""Several tables of a publisher made one: found, checked for their columns, put below each other or joined by ids."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few
from lightning_chex.data.table.columns import NONE, Columns
from lightning_chex.data.table.files import contents, find_file
from lightning_chex.data.table.reading import read_text_table


def packed_too(*names: str) -> list[str]:
    """File names, and each of them as gzip packs it."""
    return [name + end for name in names for end in ("", ".gz")]


def first_file(root: Path, *names: str) -> Path | None:
    """Return the first of some files that exists below ``root``; None if none does."""
    return next((root / name for name in names if (root / name).is_file()), None)


def published_table(root: Path, *names: str, columns: Sequence[str]) -> tuple[pd.DataFrame, Path]:
    """Read the first of some tables that exists below ``root``, also packed by gzip.

    Args:
        root: the data root.
        names: of the file, in the folders where it may lie.
        columns: those it has to have.

    Returns:
        The table, see ``read_text_table``, and its path.

    Raises:
        DataError: there is none of them, or it lacks a column.
    """
    path = find_file(root, *packed_too(*names))
    table = read_text_table(path)
    check_columns(table, path, columns)
    return table, path


def check_columns(table: pd.DataFrame, path: Path, columns: Sequence[str]) -> None:
    """Raise a DataError if a published table lacks a column."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}, which its publisher gives it; it has "
            f"{first_few(map(repr, table.columns), 20)}: get the publisher's file"
        )


def stacked(parts: Sequence[tuple[pd.DataFrame, Path]]) -> tuple[pd.DataFrame, Path]:
    """Put tables below each other.

    Args:
        parts: tables from ``read_text_table`` with their paths.

    Returns:
        One table with all their columns, empty where a table has none of it, and a path that names them all, for
        messages. Its rows are numbered on from table to table, where there are several.
    """
    if len(parts) == 1:
        return parts[0]
    table = pd.concat([part for part, _ in parts], ignore_index=True).fillna("")
    names = " + ".join(path.name for _, path in parts)
    return table.set_axis(range(2, len(table) + 2), axis=0), parts[0][1].parent / f"{names} (rows counted on)"


def joined(
    table: pd.DataFrame, path: Path, other: pd.DataFrame, other_path: Path, keys: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """Add columns of another table, by ids that both have.

    Args:
        table: a row of which may lack its counterpart; it has empty cells then.
        path: of it.
        other: at most one row an id.
        other_path: of it.
        keys: columns of the ids.
        columns: those to add.

    Raises:
        DataError: an id has two rows in ``other``, or none of the rows has a counterpart.
    """
    double = other.duplicated(list(keys))
    if double.any():
        row = int(double[double].index[0])
        cell = ", ".join(f"{name} {other[name][row]}" for name in keys)
        raise DataError(f"{other_path}, row {row}: {cell} has a row before ({int(double.sum()):,} such rows): keep one")
    found = table[list(keys)].reset_index().merge(other[[*keys, *columns]], on=list(keys), how="left")
    found = found.set_axis(table.index, axis=0)
    if found[columns[0]].isna().all():
        raise DataError(
            f"{path} and {other_path} have no {', '.join(keys)} in common: get both in one version of the data set"
        )
    return table.assign(**{name: found[name].fillna("") for name in columns})


def only(**given: str | list[str]) -> Columns:
    """The columns of a table all of whose columns are known: those given, and no others."""
    return Columns(**({field: NONE for field in vars(Columns()) if field != "reader"} | given))  # type: ignore[arg-type]


def folder_of(root: Path, *names: str) -> Path:
    """Return the first of some folders that exists below ``root``; raises a DataError if none does."""
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is None:
        raise DataError(
            f"no folder {' or '.join(names)} in {root}, which holds {contents(root)}: give as root the folder the "
            "publisher's files were unpacked to"
        )
    return found
