"""BrixIA: COVID-19 X-rays of one hospital as DICOM files, scored in six lung zones."""

from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.datamodule import ChestXrayDataModule, Split
from lightning_chex.data.images.images import find_images, first_few
from lightning_chex.data.images.known_files import check_once
from lightning_chex.data.sets.brixia_scores import ZONES, ScoredXrays, Target, target_names
from lightning_chex.data.splits import check_fractions, split_by_patient
from lightning_chex.data.table.files import data_root, find_file, locate, read_table
from lightning_chex.data.transforms import ImageTransform

METADATA = "metadata_global_v2.csv"

IMAGE_FOLDERS = ("dicom_clean", "dicom", "data")
"""Folders of images in the data root, several of which may exist; without any, the root itself."""


class BrixIA(ScoredXrays):
    """X-rays of BrixIA with their zone scores, as one severity score, six scores or three detectors."""


class BrixIADataModule(ChestXrayDataModule):
    """Serve BrixIA from a folder laid out as its publisher does.

    That is ``metadata_global_v2.csv`` and the files it names in ``dicom_clean/``, ``dicom/``, ``data/`` or beside it:
    DICOM as published, or copies as PNG or JPEG under the same stems.

    The 150 images of the publisher's consensus set are the test split. The 264 other images of their subjects are left
    out, with a warning, so that no subject is in two splits. Validation is drawn from the remaining subjects with a
    seed and spans the scores. The split depends on the table alone, not on which images are on disk.

    Args:
        root: the folder with the publisher's files.
        target: ``severity`` for the global score, 0 to 18; ``zones`` for the six scores, 0 to 3; or ``detectors`` for
            the three classes of ``DETECTORS``.
        val_fraction: share of the subjects outside the test set that serves for validation.
        split_seed: seed of that draw.
        allow_missing: leave out missing images with a warning, instead of raising.
        kwargs: see ``ChestXrayDataModule``.

    Raises:
        ValueError: an unknown target, or ``val_fraction`` outside 0 to 1.
    """

    label_tables = (METADATA,)

    def __init__(
        self,
        root: str | None = None,
        target: Target = "severity",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.class_names, self.score_names = target_names(target)
        check_fractions(val_fraction)
        self.root = root
        self.target: Target = target
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.allow_missing = allow_missing
        self._images = pd.DataFrame()

    def check(self) -> None:
        """Read the table, find the images and check that they match; raises a DataError otherwise."""
        root = data_root(self.root)
        images = split_by_subject(read_metadata(find_file(root, METADATA)), self.val_fraction, self.split_seed)
        folders = [root / name for name in IMAGE_FOLDERS if (root / name).is_dir()] or [root]
        where = " and ".join(map(str, folders))
        found = find_images(root, folders, self.follow_links)
        paths = locate(images["image_id"], found, where, self.allow_missing)
        images = images.loc[paths.index].assign(path=paths)
        check_once(images["path"].tolist(), self.trainer, self.decodes_sample)
        self._images = images

    def build(self, split: Split, transform: ImageTransform) -> BrixIA:
        """Make the dataset of one split."""
        return BrixIA(self._images[self._images["split"] == split], self.target, transform, self.read)


def read_metadata(path: Path) -> pd.DataFrame:
    """Read ``metadata_global_v2.csv``; no image is needed.

    Returns:
        One row per image: ``image_id``, ``patient_id`` (the publisher's Subject), the zones ``A`` to ``F`` (int, 0 to
        3), and ``consensus`` (bool), whether it is of the consensus test set.

    Raises:
        DataError: another kind of file, a score that is not six digits from 0 to 3, digits whose sum is not the global
            score, or a mark of the consensus set that is neither 0 nor 1.
    """
    names = ["Filename", "BrixiaScore", "BrixiaScoreGlobal", "ConsensusTestset", "Subject"]
    table = read_table(path, names, separator=";")
    _refuse(path, table, "BrixiaScore", ~table["BrixiaScore"].str.fullmatch("[0-3]{6}"), _SIX_DIGITS)
    _refuse(path, table, "ConsensusTestset", ~table["ConsensusTestset"].isin(["0", "1"]), "but can only be 0 or 1")
    zones = pd.DataFrame({zone: table["BrixiaScore"].str[i].astype(int) for i, zone in enumerate(ZONES)})
    different = pd.to_numeric(table["BrixiaScoreGlobal"], errors="coerce") != zones.sum(axis=1)
    if different.any():
        digits = table["BrixiaScore"][different].iloc[0]
        _refuse(
            path, table, "BrixiaScoreGlobal", different, f"but the zones {digits} add up to {sum(map(int, digits))}"
        )
    consensus = table["ConsensusTestset"] == "1"
    return pd.DataFrame(
        {"image_id": table["Filename"], "patient_id": table["Subject"], **zones, "consensus": consensus}
    )


_SIX_DIGITS = "but six zones have a digit from 0 to 3 each, leading zeros included, which spreadsheets drop"


def _refuse(path: Path, table: pd.DataFrame, column: str, wrong: pd.Series, reason: str) -> None:
    if wrong.any():
        first = table[wrong].iloc[0]
        raise DataError(
            f"{path}: {column} of {first['Filename']} is {first[column]!r}, {reason}"
            f"{f' ({wrong.sum()} such rows)' if wrong.sum() > 1 else ''}; get the publisher's file, or correct it"
        )


def split_by_subject(metadata: pd.DataFrame, val_fraction: float, seed: int) -> pd.DataFrame:
    """Assign each image a split, no subject to two of them.

    Args:
        metadata: from ``read_metadata``.
        val_fraction: share of the subjects outside the consensus set for validation.
        seed: of the draw.

    Returns:
        ``metadata`` with a column ``split``: ``test`` for the consensus set, ``train`` or ``val`` for images of other
        subjects. Further images of the consensus set's subjects are left out, with a warning.
    """
    tested = metadata["patient_id"].isin(metadata["patient_id"][metadata["consensus"]])
    left_out = metadata["image_id"][tested & ~metadata["consensus"]]
    if len(left_out):
        rank_zero_warn(
            f"{len(left_out)} images show subjects of the consensus test set and are left out of training and "
            f"validation: {first_few(left_out)}"
        )
    rest = metadata[~tested]
    severity = rest[list(ZONES)].sum(axis=1)
    split = split_by_patient(rest["patient_id"], severity, val_fraction, 0.0, seed)
    images = metadata.drop(index=left_out.index)
    return images.assign(split=split.reindex(images.index, fill_value="test"))
