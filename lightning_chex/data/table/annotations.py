"""Boxes and masks of the images of a table, matched with them by name."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import check_images, first_few, image_size
from lightning_chex.data.table.boxes import BoxColumns, box_columns, framed, read_boxes
from lightning_chex.data.table.coco import read_coco
from lightning_chex.data.table.locating import ends, names_of_images
from lightning_chex.data.table.masks import (
    MaskForm,
    Masks,
    decode_runs,
    find_mask_files,
    fitted,
    marked_pixels,
    read_mask,
    read_runs,
)
from lightning_chex.data.table.readers import ReaderRule, merge_boxes
from lightning_chex.data.table.reading import read_text_table, table_path, whole_numbers
from lightning_chex.data.table.segmentations import read_segmentations

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
        """The image in use that each name means; None for the others.

        A name means an image if one is the end of the other: ``a`` and ``images/a``, but not ``p1/a`` and ``p2/a``.

        Raises:
            DataError: names that the table does not list.
        """
        by_end: dict[str, str | None] = {}
        for own in self.paths:
            for end in ends(own):
                by_end[end] = None if end in by_end else own
        listed = {*self.listed, *(end for own in self.listed for end in ends(own))}
        strange = [
            name for name in names.unique() if name not in listed and not any(end in self.listed for end in ends(name))
        ]
        if strange:
            message = f"{path}: {what} of {len(strange):,} images that {self.table} does not name: {first_few(strange)}"
            if not self.allow_missing or len(strange) == names.nunique():
                raise DataError(f"{message}; correct one of them, or set allow_missing: true to do without these")
            rank_zero_warn(f"{message}; they are left out, because allow_missing is true")
        above = {name: next((end for end in ends(name) if end in self.paths), None) for name in names.unique()}
        return names.map(lambda name: name if name in self.paths else by_end.get(name) or above[name])


@dataclass(frozen=True)
class MaskSources:
    """Sources of the masks: files and run lengths for each class and image.

    Attributes:
        classes: their number K.
        files: mask files.
        runs: run lengths.
        form: of the run lengths.
        frame: width and height of what they were drawn on; None: of the image file.
        frames: the same of single images, by name.
    """

    classes: int
    files: Mapping[Key, str] = field(default_factory=dict)
    runs: Mapping[Key, Sequence[str]] = field(default_factory=dict)
    form: MaskForm = "siim"
    frame: tuple[int, int] | None = None
    frames: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def images(self) -> set[str]:
        """Names of the images that have a mask."""
        return {name for name, _ in (*self.files, *self.runs)}

    def sizes(self) -> list[object]:
        """Return values that identify the masks: sizes of files, and run lengths."""
        files = [(key, os.path.getsize(path)) for key, path in sorted(self.files.items())]
        return [*files, *sorted(self.runs.items()), self.form, self.frame, *sorted(self.frames.items())]

    def draw(self, name: str, path: str, height: int, width: int) -> np.ndarray:
        """Draw the masks of one image at its size, bool (K, height, width); an absent one is empty."""
        planes = np.zeros((self.classes, height, width), bool)
        for k in range(self.classes):
            if (name, k) in self.files:
                planes[k] |= fitted(read_mask(self.files[name, k]), height, width)
            for text in self.runs.get((name, k), ()):
                columns, rows = self.frames.get(name) or self.frame or image_size(path)
                planes[k] |= fitted(decode_runs(text, rows, columns, self.form), height, width)
        return planes


def read_box_file(boxes: str, root: Path, given: BoxColumns) -> tuple[pd.DataFrame, Path, BoxColumns]:
    """Read a table of boxes and find its columns; a DataError if it has none."""
    path = table_path(boxes, root, "boxes")
    table = read_coco(path)[1] if path.suffix == ".json" else read_text_table(path)
    columns = box_columns(table, path, given)
    if columns is None:
        raise DataError(
            f"{path} has no columns that look like boxes (x, y, width, height; x_min, y_min, x_max, y_max): name "
            f"them by --data.box_columns.box '[A,B,C,D]'; it has {first_few(map(repr, table.columns), 20)}"
        )
    return table, path, columns


def find_boxes(
    table: pd.DataFrame,
    path: Path,
    columns: BoxColumns,
    image: str,
    classes: Sequence[str],
    names: Names,
    root: Path,
    readers: ReaderRule = "majority",
) -> pd.DataFrame:
    """Read the boxes of the images in use, see ``read_boxes``, ``framed`` and ``merge_boxes``.

    Args:
        table: with the boxes.
        path: of it.
        columns: which of its columns is what.
        image: the column of the image in the table of images, which serves where ``columns`` names none.
        classes: names of the K classes.
        names: of the images.
        root: the data root.
        readers: the rule by which boxes of several readers are joined, where a column names them.
    """
    own = columns.image or (image if image in table else str(table.columns[0]))
    boxes = read_boxes(table, path, columns, classes)
    rows = boxes.index if columns.reader is None else table.index  # readers who drew nothing count too
    known = names.known(names_of_images(whole_numbers(table[own]).loc[rows], path, root), path, "boxes")
    boxes = boxes.assign(image_id=known.loc[boxes.index])
    boxes = framed(boxes[boxes["image_id"].notna()], names.paths, path)
    if columns.reader is None:
        return boxes
    counts = {str(name): int(n) for name, n in table[columns.reader].groupby(known).nunique().items()}
    return merge_boxes(boxes.assign(reader=table[columns.reader].loc[boxes.index]), counts, readers)


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
    if masks.files is not None:
        found = find_mask_files(root, masks.files, classes, follow_links)
        check_images(list(found.values()))
        known = names.known(pd.Series([name for name, _ in found], dtype=str), root, "masks")
        files = dict(_of_known(known, [k for _, k in found], found.values()))
    if masks.runs is not None:
        path = table_path(masks.runs, root, "masks.runs")
        if path.suffix == ".json":
            own = read_segmentations(path, classes, {})
            return run_masks(own, path, replace(masks, form="coco"), len(classes), names, files)
        rows = read_runs(read_text_table(path), path, masks, classes)
        rows = rows.assign(image=names_of_images(whole_numbers(rows["image"]), path, root))
        return run_masks(rows, path, masks, len(classes), names, files)
    return MaskSources(len(classes), files)


def run_masks(
    rows: pd.DataFrame, path: Path, masks: Masks, classes: int, names: Names, files: Mapping[Key, str]
) -> MaskSources:
    """Check run lengths and keep those of the images in use.

    Args:
        rows: columns ``image`` (id), ``label`` and ``text``, see ``read_runs``; and ``width`` and ``height`` of what
            they were drawn on, if the rows tell.
        path: of their file, for messages.
        masks: with their form, and the frame where the rows do not tell.
        classes: their number K.
        names: of the images.
        files: mask files, which count too.

    Raises:
        DataError: run lengths that are no mask, or masks of images nobody lists.
    """
    runs: dict[Key, tuple[str, ...]] = {}
    frames: dict[str, tuple[int, int]] = {}
    rows = rows.assign(image=names.known(rows["image"], path, "masks")).dropna(subset="image")
    told = "width" in rows
    for row, own in zip(rows.index, rows.to_dict("records"), strict=True):
        name = str(own["image"])
        width, height = (own["width"], own["height"]) if told else masks.frame or image_size(names.paths[name])
        if told and frames.setdefault(name, (width, height)) != (width, height):
            raise DataError(f"{path}, {row}: the masks of {name!r} are of several sizes: download the file again")
        try:
            marked = marked_pixels(own["text"], height, width, masks.form)
        except ValueError as error:
            raise DataError(
                f"{path}, {row if told else f'row {row}'}: the run lengths of {name!r} are no mask of form "
                f"{masks.form}: {error}; correct the row, or give --data.masks.form or --data.masks.frame"
            ) from error
        if marked:
            key = (name, int(own["label"]))
            runs[key] = (*runs.get(key, ()), own["text"])
    frame = None if masks.frame is None else (masks.frame[0], masks.frame[1])
    return MaskSources(classes, files, runs, masks.form, frame, frames)


def _of_known(known: pd.Series, labels: Iterable[int], values: Iterable[str]) -> list[tuple[Key, str]]:
    return [
        ((name, int(k)), value) for name, k, value in zip(known, labels, values, strict=True) if isinstance(name, str)
    ]
