"""Columns of a table: names of them by their role."""

import re
from dataclasses import dataclass

import pandas as pd

from lightning_chex.data.table.words import CELLS

NONE = "none"
"""Instead of the name of a column: there is none, whatever the table has."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None is recognised by name and cells, ``none`` is not there.

    Attributes:
        image: the image's file: a path below the data root, a file name, one without suffix, or a DICOM UID.
        patient: whose image it is; without it every image counts as a patient of its own.
        split: train, val or test; without it the splits are drawn by patient.
        labels: one column a class, or the one column that names the findings as text, ``Edema|Effusion``.
        score: the severity, or several scores, instead of ``labels``.
        view: the projection, such as PA and AP.
        sex: of the patient.
        age: of the patient.
        reader: who read the image, where several have: it has a row for each of them. It is never recognised.
    """

    image: str | None = None
    patient: str | None = None
    split: str | None = None
    labels: str | list[str] | None = None
    score: str | list[str] | None = None
    view: str | None = None
    sex: str | None = None
    age: str | None = None
    reader: str | None = None


_PATIENT_FOLDERS = (r"patient[-_]?\d+", r"p\d{8}", r"(?:subject|sub|pat)[-_]?\d+")


def column_of(columns: Columns, field: str) -> str | None:
    """Return the one column of a field; None where there is none."""
    name = getattr(columns, field)
    return None if name in (None, NONE) else name


def columns_of(columns: Columns, field: str) -> list[str]:
    """Return the columns of ``labels`` or ``score`` as a list, empty where there are none."""
    names = getattr(columns, field)
    return [] if names in (None, NONE) else [names] if isinstance(names, str) else list(names)


def patient_pattern(cells: pd.Series) -> str | None:
    """Find out whether the folders of image files name the patient, as CheXpert's and MIMIC's do.

    Returns:
        The regular expression of the patient in a path; None where some path has no such folder.
    """
    paths = cells.str.replace("\\", "/", regex=False)
    return next((own for own in _PATIENT_FOLDERS if paths.str.contains(rf"(?:^|/){own}/").all()), None)


def checked_pattern(pattern: str | None) -> str | None:
    """Return a pattern of patients; a ValueError if it is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"patient_pattern is {pattern!r}, no regular expression: {error}") from error
    return pattern


def is_text(table: pd.DataFrame, columns: Columns) -> bool:
    """Whether the labels are one column of words, not columns of 0 and 1."""
    return isinstance(columns.labels, str) and columns.labels != NONE and not is_binary(table[columns.labels])


def is_binary(cells: pd.Series) -> bool:
    """Whether a column holds 0 and 1, or words for them, and nothing else."""
    found = {CELLS.get(plain_cell.lower()) for plain_cell in cells.unique()}
    return None not in found and bool({"positive", "negative"} & found)
