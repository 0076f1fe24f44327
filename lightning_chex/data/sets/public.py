"""The base of public sets whose publisher ships several tables, which become one that ``TableDataModule`` reads."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_chex.data.datamodule import ChestXrayDataModule
from lightning_chex.data.sets.table import TableDataModule
from lightning_chex.data.table.boxes import BoxColumns
from lightning_chex.data.table.columns import Columns
from lightning_chex.data.table.files import data_root
from lightning_chex.data.table.labels import Policy
from lightning_chex.data.table.masks import Masks
from lightning_chex.data.table.proposal import described_reading, proposed_config
from lightning_chex.data.table.rows import Reading, read

Published = tuple[pd.DataFrame, Path, Columns, BoxColumns | None]
"""The table of all images, its path for messages, and its columns; those of boxes, if it has some."""


class PublicDataModule(TableDataModule):
    """Serve a public set from a folder laid out as its publisher does; a child implements ``published``.

    Args:
        root: the folder with the publisher's files.
        classes: the classes to learn, in this order; by default those of the set.
        view: only images of these views; by default those of the set.
        uncertain: what labels that say uncertain (-1) count as: ``ignore``, ``positive`` or ``negative``.
        missing: what empty labels count as, likewise.
        val_fraction: share of the patients in the validation split, where the publisher has none.
        test_fraction: share of the patients in the test split, where the publisher has no split at all.
        split_seed: seed of that draw.
        allow_missing: leave out images, boxes and masks that have no counterpart with a warning, instead of raising.
        kwargs: see ``ChestXrayDataModule``.

    Raises:
        ValueError: an unknown policy, or a fraction outside 0 to 1.
    """

    options: tuple[str, ...] = ()
    """Names of a child's own arguments, which a proposed configuration names too."""

    def __init__(
        self,
        root: str | None = None,
        classes: list[str] | None = None,
        view: list[str] | None = None,
        uncertain: Policy = "ignore",
        missing: Policy = "ignore",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root,
            table=None,
            columns=Columns(),
            classes=classes,
            view=view,
            uncertain=uncertain,
            missing=missing,
            boxes=None,
            box_columns=BoxColumns(),
            masks=Masks(),
            readers="majority",
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            patient_pattern=None,
            allow_missing=allow_missing,
            **kwargs,
        )

    def published(self, root: Path) -> Published:
        """Read the publisher's tables; raises a DataError for one that is missing or lacks a column."""
        raise NotImplementedError

    def read_table(self, root: Path) -> Reading:
        """Read the publisher's tables as one."""
        table, path, columns, boxes = self.published(root)
        return read(path, columns, boxes, self.classes, None, table)

    def overview(self, num_samples: int = 12) -> dict[str, Any]:
        """Summarise what is on disk; a publisher's table that cannot be used is an error."""
        return ChestXrayDataModule.overview(self, num_samples)

    def proposal(self) -> tuple[list[str], str]:
        """Say in words what was read, and write a configuration of a training on it."""
        reading = self.reading
        shared = (
            "view",
            "uncertain",
            "missing",
            "val_fraction",
            "test_fraction",
            "split_seed",
            "allow_missing",
            "follow_links",
            "size",
            "batch_size",
            "num_workers",
        )
        settings = {name: getattr(self, name) for name in (*self.options, *shared)}
        settings = {"root": os.path.abspath(data_root(self.root)), "classes": list(reading.names), **settings}
        config = proposed_config(f"lightning_chex.data.{type(self).__name__}", settings, reading.columns, [], [])
        return described_reading(reading, reading.boxes, self.uncertain, self.missing or "ignore"), config
