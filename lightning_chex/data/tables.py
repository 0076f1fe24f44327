"""Reading the label tables publishers ship, and matching them with the images on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.errors import DataError
from lightning_chex.data.images import first_few, image_id


def data_root(root: str | Path | None) -> Path:
    """Return ``root`` as a path.

    Raises:
        DataError: it is not given, or no folder.
    """
    if root is None:
        raise DataError("no data root is given: --data.root DIR names the folder the data set was unpacked to")
    path = Path(root).expanduser()
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise DataError(f"root is {str(root)!r}, which {found}: give the folder the data set was unpacked to")
    return path


def find_file(root: Path, *names: str) -> Path:
    """Return the first of some files that exists below ``root``.

    Raises:
        DataError: none does; the message says what was looked for and what lies there instead.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    raise DataError(
        f"no {' or '.join(names)} in {root}, which holds {contents(root)}: "
        "give as root the folder the publisher's files were unpacked to"
    )


def contents(folder: Path) -> str:
    """Name the first things in a folder, for a message."""
    return first_few(sorted(entry.name for entry in folder.iterdir()), limit=8) or "nothing"


def read_table(path: Path, columns: Sequence[str], separator: str = ",") -> pd.DataFrame:
    """Read some columns of a table as text.

    Args:
        path: a table with a header, UTF-8 with or without a byte order mark.
        columns: their names in the header; the first one names the image of a row, without its suffix afterwards.
        separator: what stands between two columns.

    Returns:
        One row per image, every cell a string.

    Raises:
        DataError: not such a table, no rows, a column is missing, a cell is empty, an image has two rows or
            no proper name.
    """
    try:
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )
    except ValueError as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise DataError(f"cannot read {path} as a table separated by {separator!r}: {error}") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        header = list(map(str, table.columns))
        hint = next((mark for mark in ",;\t|" if len(header) == 1 and mark in header[0]), None)
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}, only {', '.join(map(repr, header))}"
            + (f"; it looks separated by {hint!r}, expected is {separator!r}" if hint else "")
        )
    if table.empty:
        raise DataError(f"{path} has a header but no rows")
    table = table[list(columns)].fillna("").apply(lambda cells: cells.str.strip())  # short rows leave cells undefined
    for name in columns:
        empty = table[name] == ""
        if empty.any():
            line = int(np.flatnonzero(empty)[0]) + 2
            raise DataError(f"{path} has {empty.sum()} rows without {name!r}, the first in line {line}: fill them in")
    table = table.assign(**{columns[0]: table[columns[0]].map(image_id)})
    double = table[columns[0]].duplicated()
    if double.any():
        raise DataError(
            f"{path} has more than one row for {double.sum()} images: {first_few(table[columns[0]][double])}; keep one"
        )
    return table


def locate(ids: pd.Series, found: Mapping[str, str], where: str, allow_missing: bool) -> pd.Series:
    """Look up the file of each image.

    Args:
        ids: image ids, of any index.
        found: image id to path, from ``find_images``.
        where: the folders searched, for the message.
        allow_missing: leave out images that are not on disk, with a warning, instead of refusing.

    Returns:
        Paths, on the index of ``ids`` without the images left out.

    Raises:
        DataError: images are missing and that is not allowed, or all are.
    """
    paths = ids.map(found)
    missing = ids[paths.isna()]
    if len(missing):
        message = f"{len(missing)} of the {len(ids)} images in the table are not in {where}: {first_few(missing)}"
        if len(missing) == len(ids):
            raise DataError(f"{message}; get the images, or correct root")
        if not allow_missing:
            raise DataError(f"{message}; get them, or set allow_missing: true to do without them")
        rank_zero_warn(f"{message}; they are left out, because allow_missing is true")
    return paths.dropna()
