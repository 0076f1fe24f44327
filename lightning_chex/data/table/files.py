"""Reading the label tables publishers ship, and matching them with the images on disk."""

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few, image_id

MOST_BYTES = 2**30
"""Largest size of an unpacked table: a hundred times that of the largest published one."""


class MissingImagesWarning(UserWarning):
    """Images of a table are not on disk and were left out.

    Attributes:
        names: their ids.
        total: how many images the table names, those included.
    """

    def __init__(self, message: str, names: Sequence[str], total: int) -> None:
        super().__init__(message)
        self.names = list(names)
        self.total = total


def data_root(root: str | Path | None, name: str = "root") -> Path:
    """Return ``root`` as a path; ``name`` is that of the option.

    Raises:
        DataError: it is not given, no folder, or may not be opened.
    """
    if root is None:
        raise DataError("no data root is given: --data.root DIR names the folder the data set was unpacked to")
    path = Path(root).expanduser()
    with intact(path, "a folder"):
        if path.is_dir():
            contents(path)  # may be opened
            return path
        missing = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        found = "is a file" if path.exists() else missing
    raise DataError(f"{name} is {str(root)!r}, which {found}: give the folder the data set was unpacked to")


def find_file(root: Path, *names: str) -> Path:
    """Return the first of some files that exists below ``root``; raises a DataError if none does."""
    for name in names:
        if (root / name).is_file():
            return root / name
        if (root / name).exists():
            raise DataError(f"{root / name} is a folder, a pipe or a device: put the publisher's file there")
    plain = [name for name in names if not name.endswith(".gz")]
    raise DataError(
        f"no {' or '.join(plain)} in {root}, which holds {contents(root)}: "
        "give as root the folder the publisher's files were unpacked to"
    )


def recognise(root: str, label_tables: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Find out which data set a folder holds, by its label table.

    Args:
        root: the folder.
        label_tables: the files that identify a data set, by the name of its data module.

    Returns:
        Name of the data module and the file that identifies it.

    Raises:
        DataError: no such folder, or none of the data sets.
    """
    folder = data_root(root)
    tables = [(module, name) for module, names in label_tables.items() for name in names]
    for module, name in tables:
        if (folder / name).is_file():
            return module, name
    plain = [name for _, name in tables if not name.endswith(".gz")]
    raise DataError(
        f"{folder} is no data set known here, it holds {contents(folder)}: "
        f"expected is one of {', '.join(plain)}; or name the data module by --data (lungs and masks: --data "
        "LungDataModule --data.layout NAME; images alone: --data ImageFolderDataModule; a table of your own: --data "
        "TableDataModule --data.table FILE)"
    )


@contextmanager
def intact(path: Path, kind: str) -> Iterator[None]:
    """Turn every error of reading ``path`` inside the block into a DataError; ``kind`` is what it should be."""
    try:
        yield
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"no permission to read {path}: get it from the owner, by chmod for one") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path} is empty, expected is {kind}: download the file again") from error
    except (OSError, EOFError, zlib.error) as error:  # a disk's, or those of a damaged .gz file
        raise DataError(f"cannot read {path}: {error}; download the file again") from error
    except ValueError as error:  # pandas' parser errors and wrong encodings are ValueErrors
        reason = str(error).strip()
        raise DataError(f"cannot read {path} as {kind}, in UTF-8: {reason}; download the file again") from error


def contents(folder: Path) -> str:
    """Name the first things in a folder, for a message."""
    return first_few(sorted(entry.name for entry in folder.iterdir()), limit=8) or "nothing"


def read_table(path: Path, columns: Sequence[str], separator: str = ",", optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read some columns of a table as text.

    Args:
        path: a table with a header, UTF-8 with or without a byte order mark; packed by gzip if it is called ``.gz``.
        columns: their names in the header; the first one names the image of a row, without its suffix afterwards.
        separator: what stands between two columns.
        optional: more of them, which may be missing and have empty cells.

    Returns:
        One row per image, every cell a string.

    Raises:
        DataError: not such a table, no rows, a missing or duplicate column, an empty cell, or an image with two rows or
            an invalid name.
    """
    with intact(path, f"a table separated by {separator!r}"):
        _check_unpacked(path)
        first = pd.read_csv(
            path, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )
    header = [str(name).strip() for name in first.iloc[0]]
    missing = [name for name in columns if name not in header]
    if missing:
        hint = next((mark for mark in ",;\t|" if any(f"{name}{mark}" in header[0] for name in columns)), None)
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}, only {first_few(map(repr, header), limit=12)}"
            + (f"; it looks separated by {hint!r}, expected is {separator!r}" if hint else "; correct its first line")
        )
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise DataError(f"{path} has the column {', '.join(map(repr, twice))} more than once; keep one")
    if table.empty:
        raise DataError(f"{path} has a header but no rows: download the file again")
    more = [name for name in optional if header.count(name) == 1]
    table = table.set_axis(header, axis=1)[[*columns, *more]]
    table = table.fillna("").apply(lambda cells: cells.str.strip())  # short rows leave cells undefined
    for name in columns:
        empty = table[name] == ""
        if empty.any():
            line = int(np.flatnonzero(empty)[0]) + 2
            raise DataError(f"{path} has {empty.sum()} rows without {name!r}, the first in line {line}: fill them in")
    table = table.assign(**{columns[0]: image_ids(table[columns[0]], path)})
    double = table[columns[0]].duplicated()
    if double.any():
        raise DataError(
            f"{path} has more than one row for {double.sum()} images: {first_few(table[columns[0]][double])}; keep one"
        )
    return table


def _check_unpacked(path: Path) -> None:
    """Refuse a packed table that would exhaust the memory."""
    if path.suffix != ".gz":
        return
    with gzip.open(path) as file:
        pieces = islice(iter(lambda: file.read(2**20), b""), MOST_BYTES // 2**20 + 1)
        if sum(map(len, pieces)) > MOST_BYTES:
            raise DataError(f"{path} holds more than {MOST_BYTES >> 20} MiB, packed: download the file again")


def image_ids(names: pd.Series, path: Path) -> pd.Series:
    """Turn file names of the table ``path`` into image ids, on the same index.

    Raises:
        DataError: a name has a folder in it.
    """
    try:
        return names.map(image_id)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def locate(
    ids: pd.Series, found: Mapping[str, str], where: str, allow_missing: bool, parts: pd.Series | None = None
) -> pd.Series:
    """Look up the file of each image.

    Args:
        ids: image ids, of any index.
        found: image id to path, from ``find_images``.
        where: the folders searched, for the message.
        allow_missing: leave out missing images with a warning, instead of raising.
        parts: part of each image, on the index of ``ids``, to count the missing ones by.

    Returns:
        Paths, on the index of ``ids`` without the images left out.

    Raises:
        DataError: images are missing and that is not allowed, or all are.
    """
    paths = ids.map(found)
    missing = ids[paths.isna()]
    if len(missing):
        shares = (
            "" if parts is None else ", ".join(f"{n} {part}" for part, n in parts[missing.index].value_counts().items())
        )
        message = (
            f"{len(missing)} of the {len(ids)} images in the table are not in {where}"
            f"{f' ({shares})' if shares else ''}: {first_few(missing)}"
        )
        if len(missing) == len(ids):
            raise DataError(f"{message}; get the images, or correct root")
        if not allow_missing:
            raise DataError(f"{message}; get them, or set allow_missing: true to do without them")
        message = f"{message}; they are left out, because allow_missing is true"
        rank_zero_warn(MissingImagesWarning(message, missing.tolist(), len(ids)))
    return paths.dropna()


def read_patients(ids: pd.Series, path: Path) -> pd.Series:
    """Look up the patient of each image.

    Args:
        ids: of the images, any index.
        path: ``sources.csv``, which may be missing, as may the patient of an image.

    Returns:
        The patient's number, or ``image:`` and the image's id where there is none, on the same index.

    Raises:
        DataError: the file lacks its columns, or gives an image two patients.
    """
    own = "image:" + ids
    if not path.is_file():
        return own
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        named = table.loc[table["patientid"].str.strip() != "", ["filename", "patientid"]]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} needs the comma-separated columns filename and patientid: {error}") from error
    if named.empty:
        return own
    patients = named["patientid"].str.strip().groupby(image_ids(named["filename"], path)).agg(["first", "nunique"])
    double = patients.index[patients["nunique"] > 1]
    if len(double):
        raise DataError(f"{path} gives {len(double)} images more than one patient: {first_few(double)}; keep one")
    return ids.map(patients["first"]).fillna(own)
