"""Whatever torchxrayvision reads: its data sets as samples, splits and masks of ours."""

from importlib import import_module
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import Dataset, Subset

from lightning_chex.data.contract import DataError, Samples, Split, Stage
from lightning_chex.data.datamodule import ChestXrayDataModule
from lightning_chex.data.fingerprint import fingerprint
from lightning_chex.data.labels import varied_order
from lightning_chex.data.splits import check_fractions
from lightning_chex.data.subgroups import subgroups_of
from lightning_chex.data.table.splitting import drawn_split
from lightning_chex.data.transforms import ImageTransform
from lightning_chex.extras import how_to_install

LIMIT = 1024.0
"""torchxrayvision's images reach from -1024 to 1024."""


class XRVXrays(Dataset[dict[str, Any]]):
    """Images of a torchxrayvision data set as samples.

    Args:
        source: the data set: ``img`` (1, H, W) from -1024 to 1024, ``lab`` (K,), perhaps ``pathology_masks``.
        images: columns ``place`` in ``source``, ``image_id`` and ``patient_id``, and those of `subgroups_of`.
        labels: float32 (N, K) in {0, 1}, NaN where not known.
        columns: of the source's pathologies, those that are the K classes.
        transform: what an image and its masks go through.
        masks: the source has masks: each sample then has ``finding_masks``, empty where none is given.
    """

    unknown_labels = True

    def __init__(
        self,
        source: Any,
        images: pd.DataFrame,
        labels: np.ndarray,
        columns: list[int],
        transform: ImageTransform,
        masks: bool,
    ) -> None:
        self.source = source
        self.columns = columns
        self.transform = transform
        self.masks = masks
        self.places = images["place"].tolist()
        self.image_ids: list[str] = images["image_id"].tolist()
        self.patient_ids: list[str] = images["patient_id"].tolist()
        self.subgroups = subgroups_of(images)
        self.labels = torch.from_numpy(labels.copy())

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one image; a DataError where the source cannot, or gives something else than an image."""
        name = f"image {self.image_ids[index]} of {type(self.source).__name__}"
        try:
            sample = self.source[self.places[index]]
        except Exception as error:  # its readers raise what they like
            raise DataError(f"{name} cannot be read: {type(error).__name__}: {error}") from error
        pixels = np.asarray(sample["img"], dtype=np.float64).squeeze()
        if pixels.ndim != 2 or not np.isfinite(pixels).all() or np.abs(pixels).max() > LIMIT:
            raise DataError(
                f"{name} has pixels {np.shape(sample['img'])} from {pixels.min():g} to {pixels.max():g}: give one grey "
                f"plane from {-LIMIT:g} to {LIMIT:g}, as torchxrayvision does without transform and data_aug"
            )
        grey = np.rint((pixels / LIMIT + 1) / 2 * 255).astype(np.uint8)
        found: dict[str, Any] = {}
        if self.masks:
            given = sample.get("pathology_masks") or {}
            none = np.zeros(grey.shape, bool)
            planes = [np.asarray(given[k]).squeeze() > 0 if k in given else none for k in self.columns]
            found = {"finding_masks": np.stack(planes)}
        return {
            **self.transform(grey, masks=found),
            "label": self.labels[index].clone(),
            "image_id": self.image_ids[index],
            "patient_id": self.patient_ids[index],
            **({} if self.subgroups is None else {"subgroups": dict(self.subgroups[index])}),
        }


class XRVDataModule(ChestXrayDataModule):
    """Serve a data set of torchxrayvision (extra ``xrv``), its masks as those of the findings.

    Splits are drawn by patient, with all classes in each. Explained are the images with masks, where the set has some.

    Args:
        dataset: the name of its class, such as ``torchxrayvision.datasets.NIH_Dataset``, or the data set itself.
        options: arguments of the class, such as ``imgpath``; ``pathology_masks: true`` for masks.
        classes: pathologies to learn, in this order; by default all with a known label.
        val_fraction: share of the patients in the validation split.
        test_fraction: share of the patients in the test split.
        split_seed: seed of that draw.
        kwargs: see ``ChestXrayDataModule``; there is no ``prepared`` copy.

    Raises:
        ValueError: a fraction outside 0 to 1.
    """

    def __init__(
        self,
        dataset: str | Samples | None = None,
        options: dict[str, Any] | None = None,
        classes: list[str] | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fractions(val_fraction, test_fraction)
        self.source = dataset
        self.options = dict(options or {})
        self.classes = classes
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self._opened: Any = None
        self._labels = np.zeros((0, 0), np.float32)
        self._table = pd.DataFrame()

    @property
    def opened(self) -> Any:
        """The data set, made once; a DataError where it cannot be."""
        if self._opened is None:
            self._opened = _made(self.source, self.options) if isinstance(self.source, str) else self.source
            if self._opened is None:
                raise DataError("data.dataset is not given: name a class such as torchxrayvision.datasets.NIH_Dataset")
            lacking = [name for name in ("pathologies", "labels", "csv") if not hasattr(self._opened, name)]
            if lacking:
                raise DataError(
                    f"data.dataset is a {type(self._opened).__name__} without {', '.join(lacking)}: give a data set of "
                    "torchxrayvision"
                )
        return self._opened

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]  # the data set tells them
        """Names of the classes."""
        names = [str(name) for name in self.opened.pathologies]
        if self.classes is not None:
            unknown = [name for name in self.classes if name not in names]
            if unknown:
                raise DataError(f"data.classes names {', '.join(unknown)}, but the data set has {', '.join(names)}")
            return tuple(self.classes)
        known = [bool(np.isfinite(own).any()) for own in np.asarray(self.opened.labels, dtype=np.float64).T]
        return tuple(name for name, told in zip(names, known, strict=True) if name and told)

    def check(self) -> None:
        """Open the data set and draw the splits; raises a DataError otherwise. Its images are read later."""
        source = self.opened
        csv = self.opened.csv.reset_index(drop=True)
        if len(csv) != len(source):
            raise DataError(f"{type(source).__name__} has {len(source)} images, and {len(csv)} rows in its table")
        labels = np.asarray(source.labels, dtype=np.float32)[:, self._columns]
        numbers = pd.Series([f"{i:07d}" for i in range(len(source))])
        if "patientid" not in csv:
            rank_zero_warn(f"{type(source).__name__} has no patient ids: each image is treated as its own patient")
        patients = csv["patientid"].astype(str) if "patientid" in csv else "image:" + numbers
        table = pd.DataFrame({"image_id": numbers, "patient_id": patients, "place": range(len(source))})
        if "sex_male" in csv:
            female = csv["sex_female"].astype(bool) if "sex_female" in csv else ~csv["sex_male"].astype(bool)
            table["sex"] = np.where(csv["sex_male"].astype(bool), "M", np.where(female, "F", ""))
        for own, theirs in (("age", "age_years"), ("view", "view")):
            if theirs in csv:
                table[own] = csv[theirs]
        table["masks"] = csv["has_masks"].astype(bool) if "has_masks" in csv else False
        known = pd.DataFrame(labels).notna().any(axis=1)
        self._labels = labels[known.to_numpy()]
        table = table[known].reset_index(drop=True)
        if table.empty:
            raise DataError(f"{type(source).__name__} has no image with a known label of {', '.join(self.class_names)}")
        draw = (self.val_fraction, self.test_fraction, self.split_seed)
        self._table = table.assign(split=drawn_split(table["patient_id"], self._labels, *draw))

    def build(self, split: Split, transform: ImageTransform) -> XRVXrays:
        """Make the dataset of one split."""
        return self._dataset(self._table["split"] == split, transform)

    def explained_dataset(self, stage: Stage) -> Samples:
        """Return the images of the validation or test split that have masks; all, if none has."""
        split: Split = "val" if stage == "validate" else "test"
        self.dataset(split)
        inside = self._table["split"] == split
        marked = inside & self._table["masks"] & self._has_masks
        dataset = self._dataset(marked if marked.any() else inside, self._plain)
        readable = self.readable(dataset, f"images explained at {stage}")
        return Subset(cast(Dataset, readable), varied_order(dataset.labels))

    def fingerprint(self) -> str:
        """Hash of all an evaluation depends on."""
        self.look()
        return fingerprint(self, type(self.opened).__name__, str(len(self.opened)))

    @property
    def _columns(self) -> list[int]:
        names = [str(name) for name in self.opened.pathologies]
        return [names.index(name) for name in self.class_names]

    @property
    def _has_masks(self) -> bool:
        return bool(getattr(self.opened, "pathology_masks", False))

    def _dataset(self, chosen: pd.Series, transform: ImageTransform) -> XRVXrays:
        rows = chosen.to_numpy()
        return XRVXrays(self.opened, self._table[rows], self._labels[rows], self._columns, transform, self._has_masks)


def _made(path: str, options: dict[str, Any]) -> Any:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(
            f"data.dataset is {path!r}, which cannot be imported ({error}): give the full name of a class, such as "
            f"torchxrayvision.datasets.NIH_Dataset, and {how_to_install('torchxrayvision')}"
        ) from error
    try:
        return kind(**options)
    except Exception as error:  # its data sets raise what they like for paths that are wrong
        raise DataError(f"{path} cannot be made with data.options {options}: {error}") from error
