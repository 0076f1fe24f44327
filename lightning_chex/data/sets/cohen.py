"""The public COVID-19 X-rays of the Cohen collection with Brixia scores of two radiologists."""

import os
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
from torch.utils.data import Dataset, Subset

from lightning_chex.data.contract import DataError, Samples, Split, Stage
from lightning_chex.data.datamodule import ChestXrayDataModule
from lightning_chex.data.fingerprint import fingerprint
from lightning_chex.data.images.images import find_images
from lightning_chex.data.images.known_files import check_once
from lightning_chex.data.images.lung_files import check_lungs, find_masks
from lightning_chex.data.labels import varied_order
from lightning_chex.data.sets.brixia_scores import ZONES, ScoredXrays, Target, rater_agreement, target_names
from lightning_chex.data.splits import check_fractions, split_by_patient
from lightning_chex.data.table.files import contents, data_root, find_file, locate, read_patients, read_table
from lightning_chex.data.transforms import ImageTransform

Rater = Literal["senior", "junior", "mean"]

_PREFIXES = {"senior": "S", "junior": "J", "mean": "SJ"}
_IMAGE_FOLDER = Path("data", "public-cohen-subset")
_MASK_FOLDER = "lung_masks"


class CohenBrixIA(ScoredXrays):
    """X-rays of the Cohen collection with their zone scores, as one severity score, six scores or three detectors."""


class CohenDataModule(ChestXrayDataModule):
    """Serve the publicly scored Cohen X-rays from a folder laid out as their publisher does.

    That is ``data/public-annotations.csv`` and the images in ``data/public-cohen-subset/``, PNG or JPEG. No patient is
    in two splits, and each split spans the range of scores. The patients are read from ``sources.csv`` (columns
    ``filename``, ``patientid``) in ``root``; an image without an entry counts as a patient of its own. Without that
    file images of one patient can lie in two splits.

    Args:
        root: the folder that holds ``data``.
        target: ``severity`` for the global score, 0 to 18; ``zones`` for the six scores, 0 to 3; or ``detectors`` for
            the three classes of ``DETECTORS``.
        rater: whose scores: ``senior``, ``junior``, or (for severity and zones) the ``mean`` of both.
        val_fraction: share of the patients in the validation split.
        test_fraction: share of the patients in the test split.
        split_seed: seed of the split.
        lung_masks: give each sample a ``lung_mask`` from the folder ``lung_masks`` in ``root``, one PNG file per image
            with both lungs, empty for an image without one. An evaluation uses that folder in any case.
        allow_missing: leave out missing images with a warning, instead of raising.
        kwargs: see ``ChestXrayDataModule``.

    Raises:
        ValueError: an unknown or impossible target, rater or fraction.
    """

    label_tables = ("data/public-annotations.csv",)

    def __init__(
        self,
        root: str | None = None,
        target: Target = "severity",
        rater: Rater = "senior",
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        lung_masks: bool = False,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.class_names, self.score_names = target_names(target)
        if rater not in ("senior", "junior", "mean"):
            raise ValueError(f"rater is {rater!r}: give 'senior', 'junior' or 'mean'")
        if target == "detectors" and rater == "mean":
            raise ValueError(
                "rater 'mean' gives fractional scores, which detectors do not support: give 'senior' or 'junior'"
            )
        check_fractions(val_fraction, test_fraction)
        self.root = root
        self.target: Target = target
        self.rater = rater
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.lung_masks = lung_masks
        self.allow_missing = allow_missing
        self._images = pd.DataFrame()
        self._masks: dict[str, str] = {}
        self._outlined: dict[Split, pd.DataFrame] = {}

    def check(self) -> None:
        """Read the scores, find the images and check that they match; raises a DataError otherwise."""
        root = data_root(self.root)
        scores = read_scores(find_file(root, *self.label_tables))
        folder = root / _IMAGE_FOLDER
        if not folder.is_dir():
            raise DataError(f"no folder {_IMAGE_FOLDER} in {root}, whose data folder holds {contents(root / 'data')}")
        scores["patient_id"] = read_patients(scores["image_id"], root / "sources.csv")
        # before missing images are left out and by the mean of both raters, so that the split depends on neither
        severity = zone_scores(scores, "mean").sum(axis=1)
        scores["split"] = split_by_patient(
            scores["patient_id"], severity, self.val_fraction, self.test_fraction, self.split_seed
        )
        paths = locate(
            scores["image_id"], find_images(root, [folder], self.follow_links), str(folder), self.allow_missing
        )
        images = scores.loc[paths.index].assign(path=paths)
        check_once(images["path"].tolist(), self.trainer, self.decodes_sample)
        self._masks = {}
        self._outlined = {}
        if self.lung_masks or (root / _MASK_FOLDER).is_dir():
            self._masks = find_masks(root, f"{_MASK_FOLDER}/{{id}}.png", self.follow_links)
        self._images = images.join(zone_scores(images, self.rater))
        if self.lung_masks:
            self._images = self._with_masks(self._images)

    def build(self, split: Split, transform: ImageTransform) -> CohenBrixIA:
        """Make the dataset of one split."""
        return CohenBrixIA(self._images[self._images["split"] == split], self.target, transform, self.read)

    def explained_dataset(self, stage: Stage) -> Samples:
        """Return the images to explain, with their ``lung_mask`` if there is a folder of masks."""
        split: Split = "val" if stage == "validate" else "test"
        plain = self.dataset(split)
        if self.lung_masks or not self._masks:
            return super().explained_dataset(stage)
        if split not in self._outlined:  # every mask is read to be checked: once
            self._outlined[split] = self._with_masks(self._images[self._images["split"] == split])
        dataset = CohenBrixIA(self._outlined[split], self.target, self._plain, self.read)
        return Subset(cast(Dataset, self.readable(dataset, f"{split} split, with lungs")), varied_order(plain.labels))

    def fingerprint(self) -> str:
        """Hash of all an evaluation depends on, the files of lung masks included."""
        self.look()
        return fingerprint(self, [(name, os.path.getsize(path)) for name, path in sorted(self._masks.items())])

    def _with_masks(self, images: pd.DataFrame) -> pd.DataFrame:
        masks = [(self._masks.get(name),) for name in images["image_id"]]
        check_lungs(images["path"].tolist(), masks)
        return images.assign(masks=pd.Series(masks, images.index, dtype=object))

    def rater_disagreement(self) -> dict[str, float]:
        """Compare senior and junior radiologist over all images of the table, on disk or not: ``rater_agreement``."""
        scores = read_scores(find_file(data_root(self.root), *self.label_tables))
        senior, junior = (zone_scores(scores, rater).to_numpy() for rater in ("senior", "junior"))
        return rater_agreement(senior, junior)


def read_scores(path: Path) -> pd.DataFrame:
    """Read ``public-annotations.csv``.

    Returns:
        Columns ``image_id``, ``S-A`` to ``S-F`` (senior radiologist) and ``J-A`` to ``J-F`` (junior), int, 0 to 3.

    Raises:
        DataError: another kind of file, a score that is not 0, 1, 2 or 3, or zones whose sum is not the global score.
    """
    table = read_table(path, ["filename", *(f"{rater}-{part}" for rater in "SJ" for part in (*ZONES, "Global"))])
    scores = pd.DataFrame({"image_id": table["filename"]})
    for rater in "SJ":
        columns = [f"{rater}-{zone}" for zone in ZONES]
        for column in columns:
            wrong = table[~table[column].isin(["0", "1", "2", "3"])]
            if len(wrong):
                name = wrong["filename"].iloc[0]
                score = wrong[column].iloc[0]
                raise DataError(f"{path}: {column} of {name} is {score!r}, but a zone scores 0, 1, 2 or 3; correct it")
            scores[column] = table[column].astype(int)
        total = scores[columns].sum(axis=1)
        wrong = table[pd.to_numeric(table[f"{rater}-Global"], errors="coerce") != total]
        if len(wrong):
            name = wrong["filename"].iloc[0]
            given = wrong[f"{rater}-Global"].iloc[0]
            raise DataError(
                f"{path}: the zones {columns[0]} to {columns[-1]} of {name} add up to {total[wrong.index[0]]}, "
                f"but {rater}-Global is {given}; correct one of them"
            )
    return scores


def zone_scores(scores: pd.DataFrame, rater: Rater) -> pd.DataFrame:
    """Pick one rater's zone scores, or the mean of both.

    Returns:
        Columns ``A`` to ``F``, float, on the index of ``scores``, which ``read_scores`` gives.
    """
    raters = _PREFIXES[rater]
    return pd.DataFrame(
        {zone: scores[[f"{prefix}-{zone}" for prefix in raters]].mean(axis=1) for zone in ZONES}, index=scores.index
    )
