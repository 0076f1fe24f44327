"""Boxes of a table, one row a box, in corners or sizes, in pixels or shares of the image."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import MAX_PIXELS, first_few, image_size
from lightning_chex.data.table.reading import numbers, refuse_rows
from lightning_chex.data.table.words import is_healthy, plain

BoxForm = Literal["xyxy", "xywh", "cxcywh"]
"""Corners; upper left corner, width and height; or centre, width and height."""

BoxUnit = Literal["pixels", "share"]
"""Pixels of the original, or 0 to 1 of its width and height."""

_FORMS: dict[BoxForm, tuple[tuple[str, ...], ...]] = {
    "xyxy": (
        ("xmin", "ymin", "xmax", "ymax"),
        ("x1", "y1", "x2", "y2"),
        ("x0", "y0", "x1", "y1"),
        ("left", "top", "right", "bottom"),
    ),
    "xywh": (
        ("x", "y", "w", "h"),
        ("x", "y", "width", "height"),
        ("left", "top", "width", "height"),
        ("xmin", "ymin", "width", "height"),
        ("xmin", "ymin", "w", "h"),
    ),
    "cxcywh": (
        ("xcenter", "ycenter", "width", "height"),
        ("cx", "cy", "w", "h"),
        ("cx", "cy", "width", "height"),
        ("xcenter", "ycenter", "w", "h"),
    ),
}
_LABELS = [
    "label",
    "class",
    "classname",
    "finding",
    "findinglabel",
    "category",
    "categoryname",
    "pathology",
    "labelname",
]
_FRAMES = (
    ("imagewidth", "imageheight"),
    ("originalwidth", "originalheight"),
    ("origwidth", "origheight"),
    ("width", "height"),
    ("cols", "rows"),
    ("columns", "rows"),
)

_NUMBER = r"[-+\d.eE]+"


@dataclass(frozen=True)
class BoxColumns:
    """Columns of a table of boxes; None is recognised by name.

    Attributes:
        image: the image's name, as in the table of images or its file name.
        label: the class; not needed where there is one.
        box: the four numbers, or one column that holds all of them as text, ``[x, y, w, h]``.
        form: what the numbers are, see `BoxForm`.
        unit: of the numbers; recognised by whether one is above 1.
        frame: columns with width and height of the image that the pixels are of; without them, of the image file.
        original: width and height of the images that all pixels are of, instead of ``frame``.
        reader: who drew the box, in a table of boxes of several readers. It is never recognised.
    """

    image: str | None = None
    label: str | None = None
    box: list[str] | str | None = None
    form: BoxForm | None = None
    unit: BoxUnit | None = None
    frame: list[str] | None = None
    original: list[int] | None = None
    reader: str | None = None


def box_columns(table: pd.DataFrame, path: Path, given: BoxColumns) -> BoxColumns | None:
    """Find the columns of boxes; None where a table has none and none are configured.

    Raises:
        DataError: a configured column is not there, or a part of them is missing.
    """
    for field in ("image", "label", "box", "frame", "reader"):
        names = getattr(given, field)
        for name in [names] if isinstance(names, str) else names or ():
            if name not in table.columns:
                raise DataError(
                    f"{path} has no column {name!r}, which data.box_columns.{field} names; it has "
                    f"{first_few(map(repr, table.columns), 20)}"
                )
    by_name = {plain(name): name for name in reversed(list(table.columns))}
    box = given.box
    form = given.form
    if box is None:
        ways = [(own, names) for own, several in _FORMS.items() for names in several if form in (None, own)]
        found = next(((own, names) for own, names in ways if by_name.keys() >= set(names)), None)
        if found is None:
            whole = [name for name in table.columns if plain(name) in ("bbox", "box", "bboxes", "bboxxywh", "bboxxyxy")]
            if not whole:
                return None
            box = whole[0]
            form = form or ("xyxy" if plain(box).endswith("xyxy") else "xywh" if plain(box).endswith("xywh") else None)
        else:
            form = found[0]
            box = [by_name[name] for name in found[1]]
    if form is None:
        raise DataError(f"{path}: box format of column {box!r} is ambiguous: set --data.box_columns.form xywh or xyxy")
    if not isinstance(box, str) and len(box) != 4:
        raise DataError(f"data.box_columns.box names {len(box)} columns: give four, or one that holds all of them")
    used = {box} if isinstance(box, str) else set(box)
    frame = given.frame
    if given.original is not None and len(given.original) != 2:
        raise DataError(f"data.box_columns.original is {given.original}: give width and height")
    if frame is None and given.original is None:
        pairs = [[by_name[name] for name in pair] for pair in _FRAMES if by_name.keys() >= set(pair)]
        frame = next((pair for pair in pairs if not used & set(pair)), None)
    elif frame is not None and (len(frame) != 2 or given.original is not None):
        raise DataError(
            f"data.box_columns.frame names {len(frame)} columns: give those of width and height, or original"
        )
    label = given.label or next((by_name[name] for name in _LABELS if name in by_name), None)
    return BoxColumns(given.image, label, box, form, given.unit, frame, given.original, given.reader)


def read_boxes(table: pd.DataFrame, path: Path, columns: BoxColumns, names: Sequence[str]) -> pd.DataFrame:
    """Read boxes, as corners.

    Args:
        table: from ``read_text_table``; rows without any number, of images without a box, are passed over.
        path: of the table, for messages.
        columns: from `box_columns`.
        names: of the K classes.

    Returns:
        Columns ``label`` (index of the class), ``x1``, ``y1``, ``x2``, ``y2`` and ``width``, ``height`` of the frame
        they are in (NaN where that is the image file); the index is that of the rows.

    Raises:
        DataError: a number that is none, a box without extent or outside of its frame, or a class nobody knows.
    """
    parts = _checked_four(table, path, columns)
    filled = (parts != "").any(axis=1)
    table = table[filled]
    parts = parts[filled]
    values = parts.apply(numbers)
    for name in parts:
        refuse_rows(path, str(name), parts[name], ~np.isfinite(values[name]), "is no number")
    labels = _labels(table, path, columns, names)
    table = table[labels.notna()]
    values = values[labels.notna()]
    a, b, c, d = (values.iloc[:, k] for k in range(4))
    if columns.form == "cxcywh":
        a = a - c / 2
        b = b - d / 2
    x2, y2 = (c, d) if columns.form == "xyxy" else (a + c, b + d)
    boxes = pd.DataFrame({"label": labels.dropna().astype(int), "x1": a, "y1": b, "x2": x2, "y2": y2})
    said = _said(values)
    refuse_rows(path, "box", said, ~((a < x2) & (b < y2)), f"has no extent, read as {columns.form}")
    small = bool(len(boxes)) and bool((boxes[["x1", "y1", "x2", "y2"]].to_numpy(np.float64) <= 1.01).all())
    unit = columns.unit or ("share" if small else "pixels")
    if unit == "share":
        return boxes.assign(width=1.0, height=1.0)
    if columns.original is not None:
        original_width, original_height = columns.original
        if not (original_width > 0 and original_height > 0 and original_width * original_height <= MAX_PIXELS):
            raise DataError(
                f"data.box_columns.original is {columns.original}: give width and height of an image, of at most "
                f"{MAX_PIXELS:,} pixels"
            )
        return boxes.assign(width=float(columns.original[0]), height=float(columns.original[1]))
    for k, name in enumerate(("width", "height")):
        size = numbers(table[columns.frame[k]]) if columns.frame else pd.Series(np.nan, table.index)
        if columns.frame:
            wrong = ~((size > 0) & (size <= MAX_PIXELS))
            refuse_rows(path, columns.frame[k], table[columns.frame[k]], wrong, "is no size in pixels")
        boxes[name] = size
    if columns.frame:
        too_large = boxes["width"] * boxes["height"] > MAX_PIXELS
        refuse_rows(path, columns.frame[0], table[columns.frame[0]], too_large, "is the width of no image: too large")
    return boxes


def framed(boxes: pd.DataFrame, paths: Mapping[str, str], path: Path) -> pd.DataFrame:
    """Give each box its frame, from the headers of image files where the table does not tell, and check it.

    Args:
        boxes: from `read_boxes`, with ``image_id``.
        paths: file of each image.
        path: of the table, for messages.

    Raises:
        DataError: a box that leaves its image by more than a pixel (or a hundredth, for shares).
    """
    unknown = boxes["image_id"][boxes["width"].isna()].unique()
    with ThreadPoolExecutor(max_workers=16) as pool:  # the time goes into waiting for the disk
        sizes = dict(zip(unknown, pool.map(lambda name: image_size(paths[name]), unknown), strict=True))
    own = boxes["image_id"].map(lambda name: sizes.get(name, (np.nan, np.nan)))
    boxes = boxes.assign(
        width=boxes["width"].fillna(own.map(lambda size: size[0])),
        height=boxes["height"].fillna(own.map(lambda size: size[1])),
    )
    slack = np.where(boxes["width"] == 1, 0.01, 1.0)
    inside = (boxes["x1"] >= -slack) & (boxes["y1"] >= -slack)
    inside &= (boxes["x2"] <= boxes["width"] + slack) & (boxes["y2"] <= boxes["height"] + slack)
    if not inside.all():
        row = int(inside[~inside].index[0])
        first = boxes.loc[row]
        corners = ", ".join(f"{first[name]:g}" for name in ("x1", "y1", "x2", "y2"))
        raise DataError(
            f"{path}, row {row}: the box {corners} (corners) of {first['image_id']!r} lies outside of its "
            f"{first['width']:g} x {first['height']:g} image ({int((~inside).sum()):,} such boxes): correct it, or "
            "name form, unit or frame of the boxes by --data.box_columns"
        )
    return boxes


def _checked_four(table: pd.DataFrame, path: Path, columns: BoxColumns) -> pd.DataFrame:
    """The four numbers of each row as text."""
    if isinstance(columns.box, str):
        cells = table[columns.box]
        wrong = (cells != "") & (cells.str.findall(_NUMBER).map(len) != 4)
        refuse_rows(path, columns.box, cells, wrong, "is no box: give four numbers, [x, y, w, h]")
    return four_numbers(table, columns.box or [])


def four_numbers(table: pd.DataFrame, box: str | list[str]) -> pd.DataFrame:
    """Return the four numbers of each row as text, empty where a cell does not hold four."""
    if not isinstance(box, str):
        return table[list(box)]
    pieces = table[box].str.findall(_NUMBER)
    four = [own if len(own) == 4 else [""] * 4 for own in pieces]
    return pd.DataFrame(four, index=table.index, columns=[f"{box}, number {k}" for k in range(4)])


def has_box_names(table: pd.DataFrame) -> bool:
    """Whether four columns have names that tell the form of boxes."""
    names = {plain(name) for name in table.columns}
    return any(names >= set(four) for several in _FORMS.values() for four in several)


def box_column_named(table: pd.DataFrame) -> str | None:
    """Return the column whose name says that a cell holds a whole box, but not in which form."""
    if has_box_names(table):
        return None
    return next((name for name in table.columns if plain(name) in ("bbox", "box", "bboxes")), None)


def _labels(table: pd.DataFrame, path: Path, columns: BoxColumns, names: Sequence[str]) -> pd.Series:
    """Index of the class of each box, NaN for those of other classes, which are warned of."""
    if len(names) == 1 and columns.label is None:
        return pd.Series(0.0, table.index)
    if columns.label is None:
        raise DataError(
            f"{path} has no column for the class of a box, and there are {len(names)} classes: name it by "
            f"--data.box_columns.label; it has {first_few(map(repr, table.columns), 20)}"
        )
    cells = table[columns.label]
    index = {plain(name): k for k, name in enumerate(names)}
    known = {cell: index.get(plain(cell)) for cell in cells.unique()}
    if len(names) == 1:  # a column of 0 and 1 says whether there is a finding
        known |= {cell: 0 for cell in known if cell in ("1", "1.0")}
    other = [cell for cell, k in known.items() if k is None and not is_healthy(cell)]
    if len(other) == len(known) and len(table):
        raise DataError(
            f"{path}, column {columns.label!r}: no box is of a class: {first_few(map(repr, other), 6)} are none of "
            f"{first_few(names, 12)}; name the classes by --data.classes, or correct the table"
        )
    if other:
        rank_zero_warn(f"{path}: boxes of {first_few(map(repr, other), 6)} are left out, which are none of the classes")
    return cells.map(known).astype(float)


def _said(values: pd.DataFrame) -> pd.Series:
    return pd.Series(
        [", ".join(f"{value:g}" for value in row) for row in values.to_numpy()], values.index, dtype=object
    )
