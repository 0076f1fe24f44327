"""Masks of findings: image files, or run lengths in a table, as SIIM-ACR and COCO write them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import MAX_PIXELS, first_few, read_grey
from lightning_chex.data.images.lung_files import find_masks
from lightning_chex.data.table.reading import refuse_rows
from lightning_chex.data.table.words import plain

MaskForm = Literal["siim", "coco", "pixels"]
"""How run lengths are written. ``siim``: pairs of the distance to the last marked run and a length, column by column;
``pixels``: pairs of the first pixel, counted from 1, and a length, column by column; ``coco``: its compressed text."""

NO_MASK = ("", "-1", "nan")


@dataclass(frozen=True)
class Masks:
    """Location of masks: image files, or run lengths in a table.

    Attributes:
        files: pattern of the files below the root, such as ``masks/{class}/{id}.png``; ``{class}`` is not needed where
            there is one class.
        runs: a table of run lengths; an image and class may have several rows. Or JSON as of CheXlocalize,
            ``{image: {class: {size, counts}}}``, which tells all of the following.
        image: its column with the image; by default the first one.
        text: its column with the run lengths; by default the last one.
        label: its column with the class; not needed where there is one.
        form: how run lengths are written.
        frame: width and height of the images they were drawn on; by default those of the image files.
    """

    files: str | None = None
    runs: str | None = None
    image: str | None = None
    text: str | None = None
    label: str | None = None
    form: MaskForm = "siim"
    frame: list[int] | None = None


def read_runs(table: pd.DataFrame, path: Path, given: Masks, names: Sequence[str]) -> pd.DataFrame:
    """Read a table of run lengths.

    Returns:
        Columns ``image`` (as written), ``label`` (index of the class) and ``text``, for each row that marks something,
        on the numbers of the rows.

    Raises:
        DataError: a column that is not there, or a class nobody knows.
    """
    columns = list(table.columns)
    for field in ("image", "text", "label"):
        name = getattr(given, field)
        if name is not None and name not in columns:
            raise DataError(f"{path} has no column {name!r}, which data.masks.{field} names; it has {columns}")
    image = given.image or columns[0]
    text = given.text or columns[-1]
    if given.label is None and len(names) > 1:
        raise DataError(f"{path}: name the column with the class of a mask by --data.masks.label; it has {columns}")
    labels = pd.Series(0, table.index)
    if given.label is not None:
        index = {plain(name): k for k, name in enumerate(names)}
        found = table[given.label].map(lambda cell: index.get(plain(cell)))
        refuse_rows(path, given.label, table[given.label], found.isna(), f"is no class: {first_few(names, 12)}")
        labels = found.astype(int)
    rows = pd.DataFrame({"image": table[image], "label": labels, "text": table[text]})
    return rows[~rows["text"].str.lower().isin(NO_MASK)]


def find_mask_files(root: Path, pattern: str, names: Sequence[str], follow_links: bool) -> dict[tuple[str, int], str]:
    """List mask files.

    Args:
        root: the data root, which has to contain all masks.
        pattern: below it, ``{id}`` in the file name for the image, ``{class}`` anywhere for the class, unless there is
            one class only.
        names: of the K classes.
        follow_links: let folders and files be links to somewhere else.

    Returns:
        Path by the image's name and index of the class.

    Raises:
        DataError: a pattern that does not tell the class, or no such folder.
    """
    if "{id}" not in pattern.rpartition("/")[2]:
        raise DataError(f"masks is {pattern!r}: give a pattern below the root such as masks/{{class}}/{{id}}.png")
    if "{class}" not in pattern and len(names) > 1:
        raise DataError(
            f"masks is {pattern!r}, which does not say whose mask it is, and there are {len(names)} classes: put "
            "{class} into it"
        )
    found: dict[tuple[str, int], str] = {}
    folders = [pattern.replace("{class}", name) for name in names]
    for k, own in enumerate(folders):
        if (root / own).parent.is_dir() or not any((root / other).parent.is_dir() for other in folders):
            found |= {(name, k): file for name, file in find_masks(root, own, follow_links).items()}
    if not found:
        raise DataError(f"no file in {root} is like {pattern!r}, which data.masks gives: correct it")
    return found


def read_mask(path: str) -> np.ndarray:
    """Read a mask file, bool (H, W): a pixel belongs to it from half the largest value on; all 0 marks nothing."""
    grey = read_grey(path).astype(np.int64)
    return (2 * grey >= grey.max()) & (grey > 0)


def decode_runs(text: str, height: int, width: int, form: MaskForm) -> np.ndarray:
    """Draw the mask of run lengths.

    Args:
        text: the run lengths.
        height: of the image they were drawn on.
        width: of it.
        form: how they are written.

    Returns:
        bool (height, width).

    Raises:
        ValueError: no such text, runs that leave the image, or an image of more than `MAX_PIXELS`.

    Example:
        >>> decode_runs("1 2", 2, 2, "siim").astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    starts, ends = _runs(text, height, width, form)
    steps = np.zeros(height * width + 1, dtype=np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return (np.cumsum(steps)[:-1] > 0).reshape(width, height).T


def marked_pixels(text: str, height: int, width: int, form: MaskForm) -> int:
    """Count the pixels that run lengths mark, as ``decode_runs`` reads them, without drawing; ValueErrors as there."""
    starts, ends = _runs(text, height, width, form)
    return int((ends - starts).sum())


def _runs(text: str, height: int, width: int, form: MaskForm) -> tuple[np.ndarray, np.ndarray]:
    """First pixels of the runs, column by column, and those after their last ones."""
    check_frame(height, width)
    if text.strip().lower() in NO_MASK:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if form == "coco":
        runs = _coco_counts(text)
        edges = _cumulated(runs, height * width)
        starts = edges[:-1:2]
        ends = edges[1::2]
        whole = int(edges[-1]) == height * width
    else:
        pairs = [int(number) for number in text.split()]
        if len(pairs) % 2 or any(length < 0 for length in pairs[1::2]):
            raise ValueError("run lengths come in pairs of a place and a length")
        if form == "siim":
            edges = _cumulated(pairs, height * width)
            starts = edges[::2]
            ends = edges[1::2]
        else:
            bounded = np.array(_bounded(pairs, height * width), dtype=np.int64)
            starts = bounded[::2] - 1
            ends = starts + bounded[1::2]
        whole = True
    if not whole or (len(ends) and (starts.min() < 0 or ends.max() > height * width)):
        raise ValueError(f"its runs are not those of {width} x {height} pixels")
    return starts[: len(ends)], ends


def check_frame(height: int, width: int) -> None:
    """Raise a ValueError for a size that is no image's, before anything of that size is allocated."""
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"its size is {width} x {height}; 1 to {MAX_PIXELS:,} pixels can be read")


def _bounded(numbers: Sequence[int], most: int) -> Sequence[int]:
    """Return the numbers, or raise a ValueError if one cannot be a place or length among ``most`` pixels.

    Without the bound, numbers near the end of int64 would overflow in sums and look like small ones.
    """
    for number in numbers:
        if not -most <= number <= most:
            raise ValueError(f"one of its numbers is {number}, and the image has {most:,} pixels")
    return numbers


def _cumulated(numbers: Sequence[int], most: int) -> np.ndarray:
    """Sum run lengths up to each place, int64 (N,); raises a ValueError for numbers beyond the image."""
    return np.cumsum(np.array(_bounded(numbers, most), dtype=np.int64))


def _coco_counts(text: str) -> list[int]:
    """Return the run lengths of COCO's text, background first; see ``report/rle.py`` for the code."""
    counts: list[int] = []
    value = shift = 0
    for letter in text.encode():
        group = letter - 48
        # no run is as long as 2^60 pixels: more groups would only build numbers of unbounded size
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("it is no compressed text of COCO")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift or any(count < 0 for count in counts):
        raise ValueError("it is no compressed text of COCO, or a part of one")
    return counts


def fitted(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring a mask to the size of its image, bool (height, width)."""
    if mask.shape == (height, width):
        return mask
    how = cv2.INTER_AREA if height < mask.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=how) >= 0.5
