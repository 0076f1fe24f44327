"""X-rays of any folder with a table: whatever the columns are called, by configuration alone."""

import copy
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import Dataset, Subset

from lightning_chex.class_names import SCORE
from lightning_chex.data.contract import DataError, LabelledDataset, Samples, Split, Stage
from lightning_chex.data.datamodule import ChestXrayDataModule
from lightning_chex.data.fingerprint import fingerprint
from lightning_chex.data.images.known_files import check_once
from lightning_chex.data.labels import varied_order
from lightning_chex.data.sets.folder import UnlabelledXrays
from lightning_chex.data.sets.table_xrays import TableXrays
from lightning_chex.data.splits import check_fractions
from lightning_chex.data.table.annotations import MaskSources, Names, find_boxes, find_masks, mask_files, read_box_file
from lightning_chex.data.table.boxes import BoxColumns
from lightning_chex.data.table.columns import Columns, checked_pattern, column_of, columns_of
from lightning_chex.data.table.files import data_root, locate
from lightning_chex.data.table.labels import Policy, check_policies
from lightning_chex.data.table.locating import find_below, match_files, names_of_images, refuse_one_file_twice
from lightning_chex.data.table.masks import Masks
from lightning_chex.data.table.proposal import described_reading, proposed_config, score_values
from lightning_chex.data.table.readers import ReaderRule, check_rule
from lightning_chex.data.table.reading import table_path, whole_numbers
from lightning_chex.data.table.recognition import FileIndex
from lightning_chex.data.table.rows import Reading, filtered_views, image_rows, read
from lightning_chex.data.transforms import ImageTransform

_CLASS_PATH = "lightning_chex.data.TableDataModule"


class TableDataModule(ChestXrayDataModule):
    """Serve X-rays of a folder by a table of one's own: CSV, TSV, Excel or Parquet, with columns of any name.

    ``inspect --data TableDataModule --data.table T.csv --data.root DIR --write_config mine.yaml`` says what is
    recognised and writes it down; see ``docs/tutorials/own_table.md``.

    Args:
        root: the folder with the images, in folders of any depth.
        table: the table, a row per image; or a row per box, where it has columns of boxes.
        columns: which column is what; those left out are recognised by their names and cells, or it is an error.
        classes: the classes to learn, in this order; by default all that the labels name.
        view: only images of these views, such as ``[PA, AP]``.
        uncertain: what the labels -1 and ``u`` count as: ``ignore`` leaves them out of loss and scores, ``positive``,
            ``negative``.
        missing: what empty labels count as, likewise; by default ``ignore``, but for findings as text, where no cell
            says that there is none, it has to be given. An image without any known label, or score, is left out.
        boxes: a table of boxes, a row each; by default those of ``table``, if it has columns of them.
        box_columns: which of its columns is what.
        masks: masks of the findings.
        readers: how many readers of an image have to see a finding, where ``columns.reader`` names a column of them:
            ``any``, ``majority`` or ``all``; their boxes are joined too, see ``merge_boxes``.
        val_fraction: share of the patients in the validation split, where it has to be drawn.
        test_fraction: share of the patients in the test split, where no column tells the split.
        split_seed: seed of that draw, by patient, with all classes, or the range of scores, in each split.
        patient_pattern: regular expression of the patient in the image's path, where no column tells, such as
            ``patient[0-9]+``; folders of CheXpert's and MIMIC's kind are recognised.
        allow_missing: leave out images, boxes and masks that have no counterpart with a warning, instead of raising.
        sheet: of an Excel file; by default the one whose values match most image files.
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
        missing: Policy | None = None,
        boxes: str | None = None,
        box_columns: BoxColumns = BoxColumns(),  # noqa: B008
        masks: Masks = Masks(),  # noqa: B008
        readers: ReaderRule = "majority",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        patient_pattern: str | None = None,
        allow_missing: bool = False,
        sheet: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_policies(uncertain=uncertain, missing=missing or "ignore")
        check_rule(readers)
        check_fractions(val_fraction, test_fraction)
        self.root = root
        self.table = table
        self.columns = columns
        self.classes = classes
        self.patient_pattern = checked_pattern(patient_pattern)
        self.view = view
        self.uncertain: Policy = uncertain
        self.missing: Policy | None = missing
        self.sheet = sheet
        self.boxes = boxes
        self.box_columns = box_columns
        self.masks = masks
        self.readers: ReaderRule = readers
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.allow_missing = allow_missing
        self._read: Reading | None = None
        self._found: tuple[bool, dict[str, str]] | None = None  # the files, and whether links were followed
        self._problems: list[str] | None = None  # a list while inspect collects them
        self._without_labels = False
        self._labels = np.zeros((0, 0), np.float32)
        self._boxes: pd.DataFrame | None = None
        self._masks: MaskSources | None = None

    @property
    def reading(self) -> Reading:
        """The table and its columns, read once; a DataError where it cannot be used."""
        if self._read is None:
            self._read = self.read_table(data_root(self.root))
        return self._read

    def _files_below(self, root: Path) -> dict[str, str]:
        """List the images below the root, once."""
        if self._found is None or self._found[0] != self.follow_links:
            self._found = (self.follow_links, find_below(root, self.follow_links))
        return self._found[1]

    def read_table(self, root: Path) -> Reading:
        """Read the table and find its columns; a child may make it of several."""
        own = self.box_columns if self.boxes in (None, self.table) else None
        return read(
            table_path(self.table, root),
            self.columns,
            own,
            self.classes,
            self.patient_pattern,
            files=FileIndex(self._files_below(root)),
            missing=self.missing,
            sheet=self.sheet,
        )

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # the table tells them
        """Names of the classes; empty for a score."""
        self._require_decisions()
        return () if self._without_labels else self.reading.names

    @property
    def score_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the scores, where there are several."""
        names = columns_of(self.reading.columns, "score")
        return tuple(names) if len(names) > 1 else (SCORE,)

    def _require_decisions(self) -> None:
        """Raise a DataError with all that is undecided, unless ``inspect`` looks at the table."""
        points = self.reading.open
        if points and self._problems is None:
            listed = "; ".join(f"({number}) {point}" for number, point in enumerate(points, 1))
            raise DataError(f"{self.reading.path}: to decide before training: {listed}")

    def check(self) -> None:
        """Read the tables, find the images and check that they match; raises a DataError otherwise."""
        self._require_decisions()
        root = data_root(self.root)
        reading = self.reading
        if reading.recognised.guessed:
            rank_zero_warn(
                f"{reading.path}: columns were recognised ({', '.join(reading.recognised.guessed)}): inspect shows "
                "them, and writes them down by --write_config"
            )
        if any(point.option in ("columns.image", "columns.labels") for point in reading.open):
            self._show_images_alone(root)
            return
        try:
            images, labels = self._labelled_images(root)
        except DataError as error:
            if self._problems is None:
                raise
            self._problems.append(str(error))
            self._show_images_alone(root)
            return
        check_once(images["path"].tolist(), self.trainer, self.decodes_sample)
        self._labels = labels[:, 0] if not reading.names and labels.shape[1] == 1 else labels
        self._images = images.reset_index(drop=True)
        try:
            self._find_annotations()
        except DataError as error:
            if self._problems is None:
                raise
            self._problems.append(str(error))
            self._boxes = self._masks = None

    def overview(self, num_samples: int = 12) -> dict[str, Any]:
        """Summarise what is on disk; what is undecided or wrong in the table is listed under ``to_decide``."""
        fresh = copy.copy(self)
        fresh._problems = []
        found = super(TableDataModule, fresh).overview(num_samples)
        return found | {"to_decide": [*map(str, self.reading.open), *fresh._problems]}

    def parts(self) -> dict[str, LabelledDataset]:
        """Return the three splits, or all images where ``inspect`` finds no labels that can be read."""
        if self._without_labels:
            return {"images": UnlabelledXrays(self._images, self._plain, self.read)}
        return super().parts()

    def _show_images_alone(self, root: Path) -> None:
        """Take the images that the table names, or all below the root if it names none, without labels."""
        found = self._files_below(root)
        column = column_of(self.reading.columns, "image")
        named = set() if column is None else set(FileIndex(found).matched(self.reading.table[column]).dropna())
        chosen = {name: path for name, path in found.items() if path in named} or found
        self._without_labels = True
        self._images = pd.DataFrame({"image_id": list(chosen), "path": list(chosen.values())})
        self._boxes = self._masks = None
        check_once(self._images["path"].tolist(), self.trainer, self.decodes_sample)

    def _labelled_images(self, root: Path) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the images in use, with ``path``, and their labels; raises a DataError if the table is wrong."""
        reading = self.reading
        images, labels = image_rows(
            reading,
            root,
            self.uncertain,
            self.missing or "ignore",
            self.val_fraction,
            self.test_fraction,
            self.split_seed,
            self.readers,
        )
        # after the splits, which do not depend on what is filtered or missing
        kept = filtered_views(images, self.view, reading.path, column_of(reading.columns, "view")).to_numpy()
        images = images[kept]
        labels = labels[kept]
        column = str(reading.columns.image)
        masks = mask_files(self.masks, root, reading.names, self.follow_links)
        found = {name: path for name, path in self._files_below(root).items() if path not in masks}
        matched = match_files(images["image_id"], found, reading.path, column)
        where = f"{root}, as {reading.path}, column {column!r}, names them"
        paths = locate(images["image_id"], matched, where, self.allow_missing, images["split"])
        there = images.index.isin(paths.index)
        images = images[there].assign(path=paths)
        labels = labels[there]
        refuse_one_file_twice(images, reading.path, column)
        return images, labels

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
        undecided = {point.option.removeprefix("columns.") for point in reading.open}
        undecided |= {"score"} if "labels" in undecided else set()
        settings: dict[str, Any] = {
            "root": os.path.abspath(root),
            "table": os.path.abspath(reading.path),
            "columns": {name: own for name, own in asdict(reading.columns).items() if name not in undecided},
            "classes": list(reading.names) or None,
            "view": self.view,
            "uncertain": self.uncertain,
            "missing": None if "missing" in undecided else self.missing or "ignore",
            "boxes": None if self.boxes is None else os.path.abspath(table_path(self.boxes, root)),
            "box_columns": None if boxes is None else asdict(boxes),
            "masks": asdict(self.masks) if self.masks != Masks() else None,
            "readers": self.readers,
            "val_fraction": self.val_fraction,
            "test_fraction": self.test_fraction,
            "split_seed": self.split_seed,
            "patient_pattern": reading.pattern,
            "allow_missing": self.allow_missing,
            "sheet": self.sheet,
            "follow_links": self.follow_links,
            "size": self.size,
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
        }
        scores = columns_of(reading.columns, "score")
        names = self.score_names if scores else ()
        config = proposed_config(
            _CLASS_PATH, settings, reading.columns, names, score_values(reading, scores), reading.open
        )
        return described_reading(reading, boxes, self.uncertain, self.missing or "ignore"), config

    def _dataset(self, chosen: pd.Series, transform: ImageTransform) -> TableXrays:
        labels = self._labels[chosen.to_numpy()]
        classes = len(self.class_names)
        return TableXrays(self._images[chosen], labels, transform, self.read, classes, self._boxes, self._masks)

    def _find_annotations(self) -> None:
        """Find boxes and masks of the images in use."""
        root = data_root(self.root)
        reading = self.reading
        column = str(reading.columns.image)
        listed = frozenset(names_of_images(whole_numbers(reading.table[column]), reading.path, root))
        paths = dict(zip(self._images["image_id"], self._images["path"], strict=True))
        names = Names(paths, reading.path, listed, self.allow_missing)
        if not reading.names and (self.boxes or self.masks != Masks()):
            raise DataError(f"{reading.path} is read for its score: boxes and masks are of classes; leave them out")
        self._boxes = self._masks = None
        found = self.read_boxes(root) if reading.names else None
        if found is not None:
            table, path, columns = found
            self._boxes = find_boxes(table, path, columns, column, reading.names, names, root, self.readers)
        self._masks = self.read_masks(names, root)

    def read_boxes(self, root: Path) -> tuple[pd.DataFrame, Path, BoxColumns] | None:
        """Read the table of boxes: its own, or that of the images; None without boxes."""
        if self.boxes not in (None, self.table):
            return read_box_file(str(self.boxes), root, self.box_columns)
        reading = self.reading
        if reading.boxes is None:
            return None
        return reading.table, reading.path, replace(reading.boxes, reader=column_of(reading.columns, "reader"))

    def read_masks(self, names: Names, root: Path) -> MaskSources | None:
        """Find the masks of the images in use; None without masks."""
        return find_masks(self.masks, self.reading.names, names, root, self.follow_links)
