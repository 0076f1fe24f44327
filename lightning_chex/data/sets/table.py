"""X-rays of any folder with a table: whatever the columns are called, by configuration alone."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import Dataset, Subset

from lightning_chex.class_names import SCORE
from lightning_chex.data.contract import DataError, Samples, Split, Stage
from lightning_chex.data.datamodule import ChestXrayDataModule
from lightning_chex.data.files.images import ImageReader, check_images, read_grey
from lightning_chex.data.files.tables import data_root, locate
from lightning_chex.data.fingerprint import fingerprint
from lightning_chex.data.labels import varied_order
from lightning_chex.data.sets.image_files import ImageFiles
from lightning_chex.data.splits import check_fractions
from lightning_chex.data.tables.annotations import MaskSources, Names, find_boxes, find_masks, mask_files, read_box_file
from lightning_chex.data.tables.boxes import BoxColumns
from lightning_chex.data.tables.columns import Columns, checked_pattern, column_of, columns_of
from lightning_chex.data.tables.labels import Policy, check_policies
from lightning_chex.data.tables.locating import find_below, match_files, names_of_images
from lightning_chex.data.tables.masks import Masks
from lightning_chex.data.tables.proposal import described_reading, proposed_config, score_values
from lightning_chex.data.tables.reading import table_path, whole_numbers
from lightning_chex.data.tables.rows import Reading, filtered_views, image_rows, read
from lightning_chex.data.transforms import ImageTransform

_CLASS_PATH = "lightning_chex.data.TableDataModule"


class TableXrays(ImageFiles):
    """X-rays with the labels, boxes and masks of a table.

    Args:
        images: columns ``image_id``, ``patient_id`` and ``path``, a row per image.
        labels: float32 (N, K) in {0, 1} or NaN (not known), (N,) for one score, (N, S) for S scores.
        transform: what an image and its boxes go through.
        read: reads an image file.
        classes: number K of classes; 0 for scores.
        boxes: columns ``image_id``, ``label``, ``x1``, ``y1``, ``x2``, ``y2``, and ``width`` and ``height`` of the
            frame they are in; boxes of other images are ignored.
        masks: of the classes; None: there are none.
    """

    def __init__(
        self,
        images: pd.DataFrame,
        labels: np.ndarray,
        transform: ImageTransform,
        read: ImageReader = read_grey,
        classes: int = 0,
        boxes: pd.DataFrame | None = None,
        masks: MaskSources | None = None,
    ) -> None:
        super().__init__(images, transform, read)
        self.labels = torch.from_numpy(labels.copy())
        self.unknown_labels = classes > 0
        self._masks = masks
        self._boxes: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.all_box_labels: torch.Tensor | None = None
        if boxes is not None:
            boxes = boxes[boxes["image_id"].isin(images["image_id"])]
            self.all_box_labels = torch.from_numpy(boxes["label"].to_numpy(dtype=np.int64, copy=True))
            # shares of the frame, so that copies of every size give the same boxes
            corners = boxes[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
            shares = corners / boxes[["width", "height", "width", "height"]].to_numpy(np.float64)
            for name, places in boxes.groupby("image_id").indices.items():
                self._boxes[str(name)] = shares[places].clip(0, 1), boxes["label"].to_numpy()[places]

    def annotations(self, index: int, height: int, width: int) -> dict[str, Any]:
        """Return boxes and masks of one image, in its pixels."""
        name = self.image_ids[index]
        found: dict[str, Any] = {}
        if name in self._boxes:
            shares, labels = self._boxes[name]
            found = {"boxes": shares * [width, height, width, height], "box_labels": labels}
        if self._masks is not None:
            found["masks"] = {"finding_masks": self._masks.draw(name, self.paths[index], height, width)}
        return found


class TableDataModule(ChestXrayDataModule):
    """Serve X-rays of a folder by a table of one's own: CSV, TSV, Excel or Parquet, with columns of any name.

    ``inspect --data TableDataModule --data.table T.csv --data.root DIR --write_config mine.yaml`` says what is
    recognised and writes it down; see ``docs/own_table.md``.

    Args:
        root: the folder with the images, in folders of any depth.
        table: the table, a row per image; or a row per box, where it has columns of boxes.
        columns: which column is what; those left out are recognised by their names and cells, or it is an error.
        classes: the classes to learn, in this order; by default all that the labels name.
        view: only images of these views, such as ``[PA, AP]``.
        uncertain: what the labels -1 and ``u`` count as: ``ignore`` leaves them out of loss and scores, ``positive``,
            ``negative``.
        missing: what empty labels count as, likewise. An image without any known label, or score, is left out.
        boxes: a table of boxes, a row each; by default those of ``table``, if it has columns of them.
        box_columns: which of its columns is what.
        masks: masks of the findings.
        val_fraction: share of the patients in the validation split, where it has to be drawn.
        test_fraction: share of the patients in the test split, where no column tells the split.
        split_seed: seed of that draw, by patient, with all classes, or the range of scores, in each split.
        patient_pattern: regular expression of the patient in the image's path, where no column tells, such as
            ``patient[0-9]+``; folders of CheXpert's and MIMIC's kind are recognised.
        allow_missing: leave out images, boxes and masks that have no counterpart with a warning, instead of raising.
        kwargs: see ``ChestXrayDataModule``.

    Raises:
        ValueError: an unknown policy, a pattern that is none, or a fraction outside 0 to 1.
    """

    def __init__(
        self,
        root: str | None = None,
        table: str | None = None,
        columns: Columns = Columns(),  # noqa: B008  # frozen; its defaults are the options'
        classes: list[str] | None = None,
        view: list[str] | None = None,
        uncertain: Policy = "ignore",
        missing: Policy = "ignore",
        boxes: str | None = None,
        box_columns: BoxColumns = BoxColumns(),  # noqa: B008
        masks: Masks = Masks(),  # noqa: B008
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        patient_pattern: str | None = None,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_policies(uncertain=uncertain, missing=missing)
        check_fractions(val_fraction, test_fraction)
        self.root = root
        self.table = table
        self.columns = columns
        self.classes = classes
        self.patient_pattern = checked_pattern(patient_pattern)
        self.view = view
        self.uncertain: Policy = uncertain
        self.missing: Policy = missing
        self.boxes = boxes
        self.box_columns = box_columns
        self.masks = masks
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.allow_missing = allow_missing
        self._read: Reading | None = None
        self._labels = np.zeros((0, 0), np.float32)
        self._boxes: pd.DataFrame | None = None
        self._masks: MaskSources | None = None

    @property
    def reading(self) -> Reading:
        """The table and its columns, read once; a DataError where it cannot be used."""
        if self._read is None:
            path = table_path(self.table, data_root(self.root))
            own = self.box_columns if self.boxes in (None, self.table) else None
            self._read = read(path, self.columns, own, self.classes, self.patient_pattern)
        return self._read

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # the table tells them
        """Names of the classes; empty for a score."""
        return self.reading.names

    @property
    def score_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the scores, where there are several."""
        names = columns_of(self.reading.columns, "score")
        return tuple(names) if len(names) > 1 else (SCORE,)

    def check(self) -> None:
        """Read the tables, find the images and check that they match; raises a DataError otherwise."""
        root, reading = data_root(self.root), self.reading
        if reading.recognised.guessed:
            rank_zero_warn(
                f"{reading.path}: columns were recognised ({', '.join(reading.recognised.guessed)}): inspect shows "
                "them, and writes them down by --write_config"
            )
        images, labels = image_rows(
            reading, root, self.uncertain, self.missing, self.val_fraction, self.test_fraction, self.split_seed
        )
        # after the splits, which do not depend on what is filtered or missing
        kept = filtered_views(images, self.view, reading.path, column_of(reading.columns, "view")).to_numpy()
        images, labels = images[kept], labels[kept]
        column = str(reading.columns.image)
        masks = mask_files(self.masks, root, reading.names, self.follow_links)
        found = {name: path for name, path in find_below(root, self.follow_links).items() if path not in masks}
        matched = match_files(images["image_id"], found, reading.path, column)
        where = f"{root}, as {reading.path}, column {column!r}, names them"
        paths = locate(images["image_id"], matched, where, self.allow_missing, images["split"])
        there = images.index.isin(paths.index)
        images, labels = images[there].assign(path=paths), labels[there]
        _refuse_one_file_twice(images, reading.path, column)
        check_images(images["path"].tolist())
        self._labels = labels[:, 0] if not reading.names and labels.shape[1] == 1 else labels
        self._images = images.reset_index(drop=True)
        self._find_annotations()

    def build(self, split: Split, transform: ImageTransform) -> TableXrays:
        """Make the dataset of one split."""
        return self._dataset(self._images["split"] == split, transform)

    def explained_dataset(self, stage: Stage) -> Samples:
        """Return the images of the validation or test split that have boxes or masks; all, if none has."""
        split: Split = "val" if stage == "validate" else "test"
        self.dataset(split)
        marked = set(() if self._boxes is None else self._boxes["image_id"])
        marked |= set() if self._masks is None else self._masks.images()
        inside = self._images["split"] == split
        chosen = inside & self._images["image_id"].isin(marked)
        dataset = self._dataset(chosen if chosen.any() else inside, self._plain)
        name = f"images explained at {stage}"
        return Subset(cast(Dataset, self.readable(dataset, name)), varied_order(dataset.labels))

    def fingerprint(self) -> str:
        """Hash of all an evaluation depends on, boxes and masks included."""
        self.look()
        boxes = "" if self._boxes is None else self._boxes.to_csv(index=False)
        return fingerprint(self, boxes, "" if self._masks is None else self._masks.sizes())

    def proposal(self) -> tuple[list[str], str]:
        """Say in words what was recognised, and write a configuration that names all of it."""
        reading = self.reading
        root = data_root(self.root)
        boxes = reading.boxes if self.boxes is None else read_box_file(self.boxes, root, self.box_columns)[2]
        settings: dict[str, Any] = {
            "root": os.path.abspath(root),
            "table": os.path.abspath(reading.path),
            "columns": asdict(reading.columns),
            "classes": list(reading.names) or None,
            "view": self.view,
            "uncertain": self.uncertain,
            "missing": self.missing,
            "boxes": None if self.boxes is None else os.path.abspath(table_path(self.boxes, root)),
            "box_columns": None if boxes is None else asdict(boxes),
            "masks": asdict(self.masks) if self.masks != Masks() else None,
            "val_fraction": self.val_fraction,
            "test_fraction": self.test_fraction,
            "split_seed": self.split_seed,
            "patient_pattern": reading.pattern,
            "allow_missing": self.allow_missing,
            "follow_links": self.follow_links,
            "size": self.size,
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
        }
        scores = columns_of(reading.columns, "score")
        names = self.score_names if scores else ()
        config = proposed_config(_CLASS_PATH, settings, names, score_values(reading, scores))
        return described_reading(reading, boxes, self.uncertain, self.missing), config

    def _dataset(self, chosen: pd.Series, transform: ImageTransform) -> TableXrays:
        labels = self._labels[chosen.to_numpy()]
        classes = len(self.class_names)
        return TableXrays(self._images[chosen], labels, transform, self.read, classes, self._boxes, self._masks)

    def _find_annotations(self) -> None:
        """Find boxes and masks of the images in use."""
        root, reading = data_root(self.root), self.reading
        column = str(reading.columns.image)
        listed = frozenset(names_of_images(whole_numbers(reading.table[column]), reading.path, root))
        paths = dict(zip(self._images["image_id"], self._images["path"], strict=True))
        names = Names(paths, reading.path, listed, self.allow_missing)
        table, path, columns = reading.table, reading.path, reading.boxes
        if self.boxes not in (None, self.table):
            table, path, columns = read_box_file(str(self.boxes), root, self.box_columns)
        if not reading.names and (self.boxes or self.masks != Masks()):
            raise DataError(f"{reading.path} is read for its score: boxes and masks are of classes; leave them out")
        self._boxes = self._masks = None
        if columns is not None and reading.names:
            self._boxes = find_boxes(table, path, columns, column, reading.names, names, root)
        self._masks = find_masks(self.masks, reading.names, names, root, self.follow_links)


def _refuse_one_file_twice(images: pd.DataFrame, path: Path, column: str) -> None:
    again = images["path"].duplicated()
    if again.any():
        row = images["row"][again].iloc[0]
        file = images["path"][again].iloc[0]
        before = images["row"][images["path"] == file].iloc[0]
        raise DataError(
            f"{path}, row {row}, column {column!r}: {file} is the image of row {before} too: keep one row an image"
        )
