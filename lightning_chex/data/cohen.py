"""The public COVID-19 X-rays of the Cohen collection with Brixia scores of two radiologists."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from lightning_chex.data.datamodule import ChestXrayDataModule, Split
from lightning_chex.data.errors import DataError
from lightning_chex.data.images import ImageReader, check_images, find_images, first_few, image_id, read_grey
from lightning_chex.data.sample import DETECTORS, detector_label
from lightning_chex.data.tables import contents, data_root, find_file, locate, read_table
from lightning_chex.data.transforms import ImageTransform

Target = Literal["severity", "detectors"]
Rater = Literal["senior", "junior", "mean"]

ZONES = ("A", "B", "C", "D", "E", "F")

_PREFIXES = {"senior": "S", "junior": "J", "mean": "SJ"}
_IMAGE_FOLDER = Path("data", "public-cohen-subset")


class CohenBrixIA(Dataset):
    """X-rays with the Brixia scores of their six lung zones, as one severity score or three detectors.

    Args:
        images: columns ``image_id``, ``patient_id``, ``path`` and the zones ``A`` to ``F`` (0 to 3), a row per image.
        target: what ``label`` is: ``severity``, the sum of the zones, 0 to 18; or ``detectors``, see
            ``detector_label``.
        transform: what an image goes through.
        read: reads an image file.
    """

    def __init__(
        self, images: pd.DataFrame, target: Target, transform: ImageTransform, read: ImageReader = read_grey
    ) -> None:
        self.zones = torch.from_numpy(images[list(ZONES)].to_numpy(dtype=np.float32, copy=True))
        self.labels = self.zones.sum(dim=1) if target == "severity" else detector_label(self.zones)
        self.image_ids: list[str] = images["image_id"].tolist()
        self.patient_ids: list[str] = images["patient_id"].tolist()
        self.paths: list[str] = images["path"].tolist()
        self.transform = transform
        self.read = read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one image; there are no boxes.

        Raises:
            DataError: it cannot be read.
        """
        return {
            **self.transform(self.read(self.paths[index])),
            "label": self.labels[index].clone(),
            "zones": self.zones[index].clone(),
            "image_id": self.image_ids[index],
            "patient_id": self.patient_ids[index],
        }


class CohenDataModule(ChestXrayDataModule):
    """Serve the publicly scored Cohen X-rays from a folder laid out as their publisher does.

    That is ``data/public-annotations.csv`` and the images in ``data/public-cohen-subset/``, PNG or JPEG. No patient is
    in two splits, and each split spans the range of scores. Who is on an image is read from ``sources.csv`` (columns
    ``filename``, ``patientid``) in ``root``; an image without an entry there, or all where there is no such file, are
    taken for a patient of their own. The publisher's two parts alone do not tell patients apart, so without
    ``sources.csv`` images of one patient can lie on both sides.

    Args:
        root: the folder that holds ``data``.
        target: ``severity`` for the global score, 0 to 18, or ``detectors`` for the three classes of ``DETECTORS``.
        rater: whose scores: ``senior``, ``junior``, or (for severity) the ``mean`` of both.
        val_fraction: share of the patients in the validation split.
        test_fraction: share of the patients in the test split.
        split_seed: seed of the split.
        allow_missing: work with the images on disk if some are missing, and warn, instead of stopping.
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
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if target not in ("severity", "detectors"):
            raise ValueError(f"target is {target!r}: give 'severity' or 'detectors'")
        if rater not in ("senior", "junior", "mean"):
            raise ValueError(f"rater is {rater!r}: give 'senior', 'junior' or 'mean'")
        if target == "detectors" and rater == "mean":
            raise ValueError("rater 'mean' gives half scores, which no detector stands for: give 'senior' or 'junior'")
        if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
            raise ValueError(
                f"val_fraction {val_fraction} and test_fraction {test_fraction} leave no share for a split"
            )
        self.class_names = DETECTORS if target == "detectors" else ()
        self.root = root
        self.target = target
        self.rater = rater
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.allow_missing = allow_missing
        self._images = pd.DataFrame()

    def check(self) -> None:
        """Read the scores, find the images and make sure that all fit together.

        Raises:
            DataError: they do not.
        """
        root = data_root(self.root)
        scores = read_scores(find_file(root, *self.label_tables))
        folder = root / _IMAGE_FOLDER
        if not folder.is_dir():
            raise DataError(f"no folder {_IMAGE_FOLDER} in {root}, whose data folder holds {contents(root / 'data')}")
        paths = locate(scores["image_id"], find_images(root, [folder]), str(folder), self.allow_missing)
        images = scores.loc[paths.index].assign(path=paths)
        check_images(images["path"].tolist())
        images["patient_id"] = read_patients(images["image_id"], root / "sources.csv")
        # by the mean of both radiologists whoever is asked, so that models of either are split alike
        severity = zone_scores(images, "mean").sum(axis=1)
        images["split"] = split_by_patient(
            images["patient_id"], severity, self.val_fraction, self.test_fraction, self.split_seed
        )
        self._images = images.join(zone_scores(images, self.rater))

    def build(self, split: Split, transform: ImageTransform) -> CohenBrixIA:
        """Make the dataset of one split."""
        return CohenBrixIA(self._images[self._images["split"] == split], self.target, transform, self.read)


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
                name, score = wrong["filename"].iloc[0], wrong[column].iloc[0]
                raise DataError(f"{path}: {column} of {name} is {score!r}, but a zone scores 0, 1, 2 or 3; correct it")
            scores[column] = table[column].astype(int)
        total = scores[columns].sum(axis=1)
        wrong = table[pd.to_numeric(table[f"{rater}-Global"], errors="coerce") != total]
        if len(wrong):
            name, given = wrong["filename"].iloc[0], wrong[f"{rater}-Global"].iloc[0]
            raise DataError(
                f"{path}: the zones {columns[0]} to {columns[-1]} of {name} add up to {total[wrong.index[0]]}, "
                f"but {rater}-Global is {given}; correct one of them"
            )
    return scores


def zone_scores(scores: pd.DataFrame, rater: Rater) -> pd.DataFrame:
    """Pick one rater's zone scores, or the mean of both.

    Args:
        scores: from ``read_scores``.
        rater: whose.

    Returns:
        Columns ``A`` to ``F``, float, on the same index.
    """
    raters = _PREFIXES[rater]
    return pd.DataFrame(
        {zone: scores[[f"{prefix}-{zone}" for prefix in raters]].mean(axis=1) for zone in ZONES}, index=scores.index
    )


def read_patients(image_ids: pd.Series, path: Path) -> pd.Series:
    """Look up who is on each image.

    Args:
        image_ids: ids of the images, any index.
        path: ``sources.csv``, which may be absent or leave the patient of an image empty.

    Returns:
        The patient's number, or ``image:`` and the image's id where nobody says, on the same index.

    Raises:
        DataError: the file lacks its columns, or gives an image two patients.
    """
    own = "image:" + image_ids
    if not path.is_file():
        return own
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        named = table[table["patientid"].str.strip() != ""]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} needs the comma-separated columns filename and patientid: {error}") from error
    patients = named["patientid"].str.strip().groupby(named["filename"].map(image_id)).agg(["first", "nunique"])
    double = patients.index[patients["nunique"] > 1]
    if len(double):
        raise DataError(f"{path} gives {len(double)} images more than one patient: {first_few(double)}; keep one")
    return image_ids.map(patients["first"]).fillna(own)


def split_by_patient(
    patients: pd.Series, scores: pd.Series, val_fraction: float, test_fraction: float, seed: int
) -> pd.Series:
    """Share out patients so that each split spans the range of scores.

    Patients are lined up by their mean score, equal ones in random order, and taken from the line at even steps.

    Args:
        patients: patient of each image, any index.
        scores: severity of each image, on the same index.
        val_fraction: share of the patients for validation.
        test_fraction: share of the patients for test.
        seed: of the draw.

    Returns:
        ``train``, ``val`` or ``test``, on the same index.
    """
    rng = np.random.default_rng(seed)
    mean = scores.groupby(patients).mean()  # sorted by patient: the order of the rows does not matter
    line = mean.index.to_numpy()[np.lexsort([rng.random(len(mean)), mean.to_numpy()])]
    side = pd.Series("train", index=line)
    for name, share in [("val", val_fraction), ("test", test_fraction / (1 - val_fraction))]:
        free = side.index[side == "train"]
        # a step is taken wherever the running share passes a whole number, from a random start
        steps = np.floor(np.arange(len(free) + 1) * share + rng.random())
        side[free[np.diff(steps) > 0]] = name
    return patients.map(side)
