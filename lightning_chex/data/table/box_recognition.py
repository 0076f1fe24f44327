"""Box columns of a table recognised by their numbers: four that lie inside the images."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few, image_size
from lightning_chex.data.table.boxes import BoxColumns, BoxForm, box_column_named, four_numbers, has_box_names
from lightning_chex.data.table.columns import is_binary
from lightning_chex.data.table.reading import numbers
from lightning_chex.data.table.recognition import FileIndex, OpenPoint

_LOOKED_AT = 200
"""Boxes whose image size is read."""
_SMALLEST = 0.1
"""Least share of an image that the largest numbers of boxes have, typically; scores are smaller."""


def recognise_boxes(
    table: pd.DataFrame, given: BoxColumns, files: FileIndex, image: str | None, used: Iterable[str]
) -> tuple[BoxColumns, OpenPoint | None]:
    """Find the columns of boxes and their form by what fits into the images.

    Args:
        table: from ``read_text_table``.
        given: what is configured.
        files: the images below the root.
        image: the column of image files; None takes the one that matches most files.
        used: columns in another role.

    Returns:
        The columns with ``box`` and ``form`` where they are found, and the question of the form where several fit.
    """
    if given.form is not None and given.box is not None:
        return given, None
    known = given.box if given.box is not None else box_column_named(table)
    if known is None and given.form is None and has_box_names(table):
        return given, None
    matched = _matched(table, files, image)
    if matched is None:
        return given, None
    windows = [known] if known is not None else _windows(table, set(used) | {str(matched.name)})
    for box in windows:
        forms = _fitting(four_numbers(table, box).apply(numbers), matched, is_guess=known is None)
        if given.form is not None:
            forms = [form for form in forms if form == given.form]
        if len(forms) == 1:
            return replace(given, box=box, form=forms[0]), None
        if forms:
            names = repr(box) if isinstance(box, str) else first_few(map(repr, box), 4)
            question = f"box format of {names} is ambiguous, {', '.join(forms)} lie inside the images"
            return given, OpenPoint("box_columns.form", question, tuple(forms))
    if known is not None and given.form is None:
        return given, OpenPoint("box_columns.form", f"box format of column {known!r} is ambiguous", ("xywh", "xyxy"))
    return given, None


def _matched(table: pd.DataFrame, files: FileIndex, image: str | None) -> pd.Series | None:
    names = [image] if image in table.columns else list(table.columns)
    shares = {name: files.share_matched(table[name]) for name in names}
    best = max(shares, key=lambda name: shares[name])
    return files.matched(table[best]) if shares[best] >= 0.5 else None


def _windows(table: pd.DataFrame, used: set[str]) -> list[list[str]]:
    """Four adjacent columns of numbers that are filled in the same rows."""
    names = list(table.columns)
    found = []
    for k in range(len(names) - 3):
        four = names[k : k + 4]
        if used & set(four) or any(is_binary(table[name]) for name in four):
            continue
        filled = table[four] != ""
        same = bool((filled.all(axis=1) == filled.any(axis=1)).all())
        if same and filled.any(axis=None) and table[four].apply(numbers).notna().equals(filled):
            found.append(four)
    return found


def _fitting(values: pd.DataFrame, matched: pd.Series, is_guess: bool) -> list[BoxForm]:
    """Forms in which all boxes lie inside their images."""
    rows = values.notna().all(axis=1) & matched.notna()
    values = values[rows][:_LOOKED_AT]
    paths = matched[rows][:_LOOKED_AT]
    if not len(values):
        return []
    try:
        sizes = {path: image_size(path) for path in paths.unique()}
    except DataError:
        return []
    frame = np.array([sizes[path] for path in paths], dtype=np.float64)
    a, b, c, d = values.to_numpy(np.float64).T
    share = bool((values.to_numpy() <= 1.01).all())
    width, height = (np.ones(len(a)), np.ones(len(a))) if share else frame.T
    slack = 0.01 if share else 1.0
    if is_guess and not np.median(np.maximum(c / width, d / height)) > _SMALLEST:
        return []
    corners: dict[BoxForm, tuple[np.ndarray, ...]] = {
        "xyxy": (a, b, c, d),
        "xywh": (a, b, a + c, b + d),
        "cxcywh": (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    }
    fits: list[BoxForm] = []
    for form, (x1, y1, x2, y2) in corners.items():
        inside = (x1 >= -slack) & (y1 >= -slack) & (x2 <= width + slack) & (y2 <= height + slack)
        if bool((inside & (x2 > x1) & (y2 > y1)).all()):
            fits.append(form)
    return fits
