"""The split of each row: from a column, or drawn by patient."""

from pathlib import Path

import numpy as np
import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few
from lightning_chex.data.splits import draw_validation, split_by_patient
from lightning_chex.data.table.reading import refuse_rows
from lightning_chex.data.table.words import SPLITS


def named_split(cells: pd.Series, patients: pd.Series, path: Path, column: str) -> pd.Series:
    """Read the splits that a table gives.

    Args:
        cells: words for train, val and test.
        patients: of each row, on the same index.
        path: of the table, for messages.
        column: the cells' name.

    Returns:
        ``train``, ``val`` or ``test``, on the same index.

    Raises:
        DataError: another word, or a patient in two splits.
    """
    split = cells.map({cell: SPLITS.get(cell.lower()) for cell in cells.unique()})
    refuse_rows(path, column, cells, split.isna(), "is no split: give train, val or test")
    first = split.groupby(patients).transform("first")
    other = split != first
    if other.any():
        row = int(other[other].index[0])
        patient = patients[row]
        before = int((patients == patient).idxmax())
        shared = patients[other].nunique()
        raise DataError(
            f"{path}, row {row}, column {column!r}: patient {patient!r} is in {split[row]} and, in row {before}, in "
            f"{first[row]} ({shared:,} such patients): give each patient one split, or --data.columns.split none to "
            "draw splits by patient"
        )
    return split


def drawn_split(patients: pd.Series, values: np.ndarray, val: float, test: float, seed: int) -> pd.Series:
    """Draw splits by patient.

    Args:
        patients: of each row.
        values: classes in {0, 1} or NaN, (N, K), all of which are put on every side; or scores (N,), whose range is.
        val: share of validation.
        test: share of test; 0 draws none.
        seed: of the draw.

    Returns:
        ``train``, ``val`` or ``test``, on the index of ``patients``.
    """
    if values.ndim == 1:
        scores = pd.Series(values, patients.index)
        return split_by_patient(patients, scores.fillna(scores.mean()), val, test, seed)
    split = pd.Series("train", patients.index)
    for name, share in (("test", test), ("val", val / (1 - test))):
        if share > 0:
            free = split == "train"
            chosen = draw_validation(patients[free], values[free.to_numpy()], share, seed)
            split[free.index[free][chosen]] = name
    return split


def check_sides(split: pd.Series, path: Path) -> None:
    """Raise a DataError where too few patients leave a split empty that was to be drawn."""
    empty = [name for name in ("train", "val") if not (split == name).any()]
    if empty:
        raise DataError(
            f"{path} has {len(split)} usable rows, too few patients for a {first_few(empty)} split: give more, name "
            "the splits by --data.columns.split, or give other fractions"
        )
