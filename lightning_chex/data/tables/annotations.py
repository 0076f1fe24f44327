"""Boxes and masks of the images of a table, matched with them by name."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.files.images import check_images, first_few, image_size
from lightning_chex.data.tables.boxes import BoxColumns, box_columns, framed, read_boxes
from lightning_chex.data.tables.locating import names_of_images
from lightning_chex.data.tables.masks import (
    MaskForm,
    Masks,
    decode_runs,
    find_mask_files,
    fitted,
    read_mask,
    read_runs,
)
from lightning_chex.data.tables.reading import read_text_table, table_path, whole_numbers

Key = tuple[str, int]
"""Name of an image and index of a class."""


@dataclass(frozen=True)
class Names:
    """The images of a table, by which other tables and files may speak of them.

    Attributes:
        paths: file of each image in use, by its id.
        table: path of the table.
        listed: ids of all its rows, those that are not in use too: filtered, missing, without labels.
        allow_missing: leave out what is of images that the table does not list, instead of raising.
    """

    paths: Mapping[str, str]
    table: Path
    listed: frozenset[str]
    allow_missing: bool

    def known(self, names: pd.Series, path: Path, what: str) -> pd.Series:
        """The image in use that each name means, by its whole name or its last part; None for the others.

        Raises:
            DataError: names that the table does not list.
        """
        last: dict[str, str | None] = {}
        for own in self.paths:
            short = _last(own)
            last[short] = None if short in last else own
        listed = {*self.listed, *map(_last, self.listed)}
        strange = [name for name in names.unique() if name not in listed and _last(name) not in listed]
        if strange:
            message = f"{path}: {what} of {len(strange):,} images that {self.table} does not name: {first_few(strange)}"
            if not self.allow_missing or len(strange) == names.nunique():
                raise DataError(f"{message}; correct one of them, or set allow_missing: true to do without these")
            rank_zero_warn(f"{message}; they are left out, because allow_missing is true")
        return names.map(lambda name: name if name in self.paths else last.get(_last(name)))


@dataclass(frozen=True)
class MaskSources:
    """What marks each class in each image.

    Attributes:
        classes: their number K.
        files: mask files.
        runs: run lengths.
        form: of the run lengths.
        frame: width and height of what they were drawn on; None: of the image file.
    """

    classes: int
    files: Mapping[Key, str] = field(default_factory=dict)
    runs: Mapping[Key, Sequence[str]] = field(default_factory=dict)
    form: MaskForm = "siim"
    frame: tuple[int, int] | None = None

    def images(self) -> set[str]:
        """Names of the images that have a mask."""
        return {name for name, _ in (*self.files, *self.runs)}

    def sizes(self) -> list[object]:
        """What identifies the masks: sizes of files, and run lengths."""
        files = [(key, os.path.getsize(path)) for key, path in sorted(self.files.items())]
        return [*files, *sorted(self.runs.items()), self.form, self.frame]

    def draw(self, name: str, path: str, height: int, width: int) -> np.ndarray:
        """Draw the masks of one image at its size, bool (K, height, width); an absent one is empty."""
        planes = np.zeros((self.classes, height, width), bool)
        for k in range(self.classes):
            if (name, k) in self.files:
                planes[k] |= fitted(read_mask(self.files[name, k]), height, width)
            for text in self.runs.get((name, k), ()):
                columns, rows = self.frame or image_size(path)
                planes[k] |= fitted(decode_runs(text, rows, columns, self.form), height, width)
        return planes


def read_box_file(boxes: str, root: Path, given: BoxColumns) -> tuple[pd.DataFrame, Path, BoxColumns]:
    """Read a table of boxes and find its columns; a DataError if it has none."""
    path = table_path(boxes, root, "boxes")
    table = read_text_table(path)
    columns = box_columns(table, path, given)
    if columns is None:
        raise DataError(
            f"{path} has no columns that look like boxes (x, y, width, height; x_min, y_min, x_max, y_max): name "
            f"them by --data.box_columns.box '[A,B,C,D]'; it has {first_few(map(repr, table.columns), 20)}"
        )
    return table, path, columns


def find_boxes(
    table: pd.DataFrame, path: Path, columns: BoxColumns, image: str, classes: Sequence[str], names: Names, root: Path
) -> pd.DataFrame:
    """Read the boxes of the images in use, see ``read_boxes`` and ``framed``.

    Args:
        table: with the boxes.
        path: of it.
        columns: which of its columns is what.
        image: the column of the image in the table of images, which serves where ``columns`` names none.
        classes: names of the K classes.
        names: of the images.
        root: the data root.
    """
    own = columns.image or (image if image in table else str(table.columns[0]))
    boxes = read_boxes(table, path, columns, classes)
    ids = names_of_images(whole_numbers(table[own]).loc[boxes.index], path, root)
    boxes = boxes.assign(image_id=names.known(ids, path, "boxes"))
    return framed(boxes[boxes["image_id"].notna()], names.paths, path)


def mask_files(masks: Masks, root: Path, classes: Sequence[str], follow_links: bool) -> set[str]:
    """Return the paths of all mask files, which are no images, whatever they are called."""
    return set() if masks.files is None else set(find_mask_files(root, masks.files, classes, follow_links).values())


def find_masks(
    masks: Masks, classes: Sequence[str], names: Names, root: Path, follow_links: bool
) -> MaskSources | None:
    """Find the masks of the images in use; None where none are configured.

    Raises:
        DataError: a file that cannot be read, run lengths that are no mask, or masks of images nobody lists.
    """
    if masks.files is None and masks.runs is None:
        return None
    files: dict[Key, str] = {}
    runs: dict[Key, tuple[str, ...]] = {}
    if masks.files is not None:
        found = find_mask_files(root, masks.files, classes, follow_links)
        check_images(list(found.values()))
        known = names.known(pd.Series([name for name, _ in found], dtype=str), root, "masks")
        files = dict(_of_known(known, [k for _, k in found], found.values()))
    if masks.runs is not None:
        path = table_path(masks.runs, root, "masks.runs")
        rows = read_runs(read_text_table(path), path, masks, classes)
        known = names.known(names_of_images(whole_numbers(rows["image"]), path, root), path, "masks")
        for row, (key, text) in zip(known.dropna().index, _of_known(known, rows["label"], rows["text"]), strict=True):
            width, height = masks.frame or image_size(names.paths[key[0]])
            try:
                decode_runs(text, height, width, masks.form)
            except ValueError as error:
                raise DataError(
                    f"{path}, row {row}: the run lengths of {key[0]!r} are no mask of form {masks.form}: {error}; "
                    "correct the row, or give --data.masks.form or --data.masks.frame"
                ) from error
            runs[key] = (*runs.get(key, ()), text)
    frame = None if masks.frame is None else (masks.frame[0], masks.frame[1])
    return MaskSources(len(classes), files, runs, masks.form, frame)


def _of_known(known: pd.Series, labels: Iterable[int], values: Iterable[str]) -> list[tuple[Key, str]]:
    return [
        ((name, int(k)), value) for name, k, value in zip(known, labels, values, strict=True) if isinstance(name, str)
    ]


def _last(name: str) -> str:
    return name.rpartition("/")[2]
