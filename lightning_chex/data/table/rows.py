"""From a table to one row an image: names, patients, splits and labels, with all that could be wrong said at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few
from lightning_chex.data.table.box_recognition import recognise_boxes
from lightning_chex.data.table.boxes import BoxColumns, box_columns
from lightning_chex.data.table.columns import NONE, Columns, column_of, columns_of, is_text, patient_pattern
from lightning_chex.data.table.labels import Policy, class_labels, class_names_of, severity_scores
from lightning_chex.data.table.locating import names_of_images
from lightning_chex.data.table.readers import ReaderRule, merge_labels
from lightning_chex.data.table.reading import numbers, read_text_table, refuse_rows, whole_numbers
from lightning_chex.data.table.recognition import FileIndex, OpenPoint, Recognised, empty_labels, recognise_columns
from lightning_chex.data.table.splitting import check_sides, drawn_split, named_split


@dataclass(frozen=True)
class Reading:
    """A table as text, and what its columns are.

    Attributes:
        table: from ``read_text_table``.
        path: of the file.
        recognised: its columns.
        names: of the K classes; empty for scores.
        boxes: the columns of boxes, where it has some.
        pattern: of the patient in the image's path, where no column tells.
        open: what is undecided.
    """

    table: pd.DataFrame
    path: Path
    recognised: Recognised
    names: tuple[str, ...]
    boxes: BoxColumns | None
    pattern: str | None = None
    open: tuple[OpenPoint, ...] = ()

    @property
    def columns(self) -> Columns:
        """Roles of the columns."""
        return self.recognised.columns


def read(
    path: Path,
    columns: Columns,
    boxes: BoxColumns | None,
    classes: Sequence[str] | None,
    pattern: str | None = None,
    table: pd.DataFrame | None = None,
    files: FileIndex | None = None,
    missing: Policy | None = None,
    sheet: str | None = None,
) -> Reading:
    """Recognise the columns of a table, which is read unless it is given.

    Without ``boxes`` those of boxes are not looked for. With ``files``, the images below the root, columns are
    recognised by their cells too. Without ``missing`` it is a question what empty cells of findings mean.
    """
    if table is None:
        table = read_text_table(path, sheet, None if files is None else files.most_matches)
    points: list[OpenPoint] = []
    own = None
    if boxes is not None:
        if files is not None:
            used = {name for field in vars(columns) for name in columns_of(columns, field)}
            boxes, question = recognise_boxes(table, boxes, files, column_of(columns, "image"), used)
            points += [] if question is None else [question]
        own = None if points else box_columns(table, path, boxes)
    ignored = [] if own is None else [*([own.box] if isinstance(own.box, str) else own.box or ()), *(own.frame or ())]
    recognised = recognise_columns(table, path, columns, ignored, files)
    found = recognised.columns
    if own is not None and own.label is None and is_text(table, found):
        own = replace(own, label=str(found.labels))
    image = column_of(found, "image")
    if pattern is None and image is not None and columns.patient is None and found.patient == NONE:
        pattern = patient_pattern(table[image])
    points = [
        *(point for point in recognised.open if pattern is None or point.option != "columns.patient"),
        *points,
    ]
    points = [point for point in points if missing is None or point.option != "missing"]
    if missing is None and (question := empty_labels(table, found)) is not None:
        points.append(question)
    labelled = columns_of(found, "labels") or columns_of(found, "score")
    names = class_names_of(table, path, found, classes) if labelled else tuple(classes or ())
    return Reading(table, path, recognised, names, own, pattern, tuple(points))


def _patients_of(ids: pd.Series, pattern: str, path: Path, column: str) -> pd.Series:
    found = ids.str.extract(f"({pattern})", expand=True)[0]
    refuse_rows(path, column, ids, found.isna(), f"has no patient like {pattern!r}: correct data.patient_pattern")
    return found


def image_rows(
    reading: Reading,
    root: Path,
    uncertain: Policy,
    missing: Policy,
    val: float,
    test: float,
    seed: int,
    readers: ReaderRule = "majority",
) -> tuple[pd.DataFrame, np.ndarray]:
    """Make one row an image.

    A table with boxes, or of several readers, may have several rows an image; their labels are joined.

    Args:
        reading: from `read`.
        root: the data root.
        uncertain: see ``class_labels``.
        missing: likewise.
        val: share of validation, where it has to be drawn.
        test: share of test, where all splits have to be drawn.
        seed: of the draw.
        readers: how many of the readers of an image have to see a class, where a column names them.

    Returns:
        Columns ``image_id``, ``patient_id``, ``split``, ``row`` (of the table) and, where they are known, ``view``,
        ``sex`` and ``age``; and the labels, float32 (N, K) or (N, S). Images without any known label are left out, with
        a warning.

    Raises:
        DataError: see the parts.
    """
    table = reading.table
    path = reading.path
    columns = reading.columns
    cells = whole_numbers(table[str(columns.image)])
    ids = names_of_images(cells, path, root)
    labels = (
        class_labels(table, path, columns, reading.names, uncertain, missing)
        if reading.names
        else severity_scores(table, path, columns)
    )
    own = "image:" + ids
    patient = column_of(columns, "patient")
    patients = own if patient is None else whole_numbers(table[patient])
    if patient is None and reading.pattern is not None:
        patients = _patients_of(ids, reading.pattern, path, str(columns.image))
    elif "patient" in reading.recognised.lacking:
        rank_zero_warn(
            f"{path}: no patient column found; each image is treated as its own patient: set "
            "--data.columns.patient, or none there"
        )
    patients = patients.where(patients != "", own)
    images = pd.DataFrame({"image_id": ids, "patient_id": patients, "row": table.index}, index=table.index)
    for field in ("split", "view", "sex", "age"):
        name = column_of(columns, field)
        if name is not None:
            images[field] = table[name]
    if "age" in images:
        images["age"] = _ages(images["age"], path, str(columns.age))
    images, labels = _one_row_each(images, labels, reading, readers)
    told = np.isfinite(labels).any(axis=1) if reading.names else np.isfinite(labels).all(axis=1)
    if not told.all():
        kind = "known label" if reading.names else "score"
        if not told.any():
            raise DataError(f"{path}: no row has a {kind}: correct data.columns, data.uncertain or data.missing")
        rank_zero_warn(f"{path}: {(~told).sum():,} of the {len(told):,} images have no {kind} and are left out")
        images = images[told]
        labels = labels[told]
    values = labels if reading.names else labels.sum(axis=1)
    return images.assign(split=_splits(images, values, reading, val, test, seed)), labels


def _splits(
    images: pd.DataFrame, values: np.ndarray, reading: Reading, val: float, test: float, seed: int
) -> pd.Series:
    column = column_of(reading.columns, "split")
    if column is None:
        split = drawn_split(images["patient_id"], values, val, test, seed)
        check_sides(split, reading.path)
        return split
    split = named_split(images["split"], images["patient_id"], reading.path, column)
    if not (split == "val").any() and (split == "train").any():
        pool = split == "train"
        split[pool] = drawn_split(images["patient_id"][pool], values[pool.to_numpy()], val, 0.0, seed)
        check_sides(split[pool], reading.path)
        rank_zero_warn(
            f"{reading.path}, column {column!r}, has no validation split: {(split == 'val').sum():,} training images "
            "serve for it, drawn by patient"
        )
    return split


def _one_row_each(
    images: pd.DataFrame, labels: np.ndarray, reading: Reading, readers: ReaderRule
) -> tuple[pd.DataFrame, np.ndarray]:
    """Join the rows of an image where each is a box or a reader's; elsewhere refuse a second one."""
    path = reading.path
    ids = images["image_id"]
    reader = column_of(reading.columns, "reader")
    again = ids.duplicated()
    if not again.any():
        return images, labels
    first_row = ids.map(images["row"].groupby(ids).first())
    if reading.boxes is None and reader is None:
        row = int(again[again].index[0])
        raise DataError(
            f"{path}, row {row}, column {reading.columns.image!r}: image {ids[row]!r} is in row {first_row[row]} too "
            f"({int(again.sum()):,} such rows): keep one row an image"
        )
    for field in ("patient_id", "split"):
        if field in images:
            other = images[field] != images[field].loc[first_row.to_numpy()].to_numpy()
            name = str(getattr(reading.columns, field.removesuffix("_id")))
            refuse_rows(path, name, images[field], other, "differs from an earlier row of the same image: correct one")
    table = pd.DataFrame(labels, index=images.index)
    if not reading.names:
        spread = table.groupby(ids).transform("max") != table.groupby(ids).transform("min")
        wrong = spread.any(axis=1) & table.notna().any(axis=1)
        name = columns_of(reading.columns, "score")[0]
        refuse_rows(path, name, reading.table[name], wrong, "is not the score of all rows of this image: correct one")
    joined = table.groupby(ids).max()  # positive if one row is; NaN only where all are
    if reader is not None and reading.names:
        joined = merge_labels(labels, ids, reading.table[reader], readers)
    images = images[~again]
    return images, joined.loc[images["image_id"]].to_numpy(dtype=np.float32)


def filtered_views(images: pd.DataFrame, wanted: Sequence[str] | None, path: Path, column: str | None) -> pd.Series:
    """Return which images have one of the views asked for, bool; all without ``wanted``.

    Raises:
        DataError: there is no column of views, or no image has such a one.
    """
    if wanted is None:
        return pd.Series(True, images.index)
    if column is None:
        raise DataError(f"data.view is {list(wanted)}, but {path} has no column of views: --data.columns.view names it")
    views = images["view"].str.lower()
    known = sorted(set(images["view"]))
    for view in wanted:
        if not (views == view.lower()).any():
            raise DataError(
                f"{path}, column {column!r}: no image has the view {view!r}; there are {first_few(known, 12)}"
            )
    return views.isin([view.lower() for view in wanted])


def _ages(cells: pd.Series, path: Path, column: str) -> pd.Series:
    """Ages in years: plain numbers, or those of DICOM, ``045Y``, ``018M``."""
    parts = cells.str.extract(r"^0*(\d+(?:[.,]\d+)?)\s*([YMWDymwd]?)")
    years = {"m": 12.0, "w": 52.18, "d": 365.25}
    ages = numbers(parts[0].fillna("")) / parts[1].fillna("").str.lower().map(lambda unit: years.get(unit, 1.0))
    wrong = (cells != "") & ages.isna() & (cells.str.lower() != "nan")
    refuse_rows(
        path, column, cells, wrong, f"is no age: correct it, or --data.columns.age none ({column!r} is not used)"
    )
    return ages
