"""The phantom: chest X-rays drawn on the fly, with exact masks, to try everything without a download.

``data/phantom`` draws the images; here they become labelled samples and splits. An image depends on (seed, index)
alone, not on the order of access, the worker, or the global random state.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from lightning_chex.class_names import DETECTORS, PATHOLOGIES
from lightning_chex.data.datamodule import ChestXrayDataModule, LabelledDataset, Split
from lightning_chex.data.fingerprint import fingerprint
from lightning_chex.data.images.lung_masks import NUM_ZONES
from lightning_chex.data.phantom.findings import Appearance
from lightning_chex.data.phantom.foreign import Foreign, Kind, Shortcut
from lightning_chex.data.phantom.render import LABEL, SHORTCUT, Radiograph, random_stream, take
from lightning_chex.data.phantom.severity import draw_scores
from lightning_chex.data.sets.brixia_scores import target_label
from lightning_chex.data.transforms import ImageTransform

Target = Literal["pathologies", "severity", "detectors"]

PREVALENCE: Mapping[str, float] = {
    "Atelectasis": 0.16,
    "Cardiomegaly": 0.10,
    "Effusion": 0.18,
    "Infiltration": 0.20,
    "Mass": 0.12,
    "Nodule": 0.12,
    "Pneumonia": 0.07,
    "Pneumothorax": 0.10,
}
"""Probability of each pathology: ranked as in NIH ChestX-ray8, but higher, so that a short training sees all."""

HEALTHY = 0.25
"""Share of images drawn as healthy; with those where no pathology is drawn, about 40 % show no finding."""

MAX_CONSPICUITY = 2.0
MIN_EXTENT = 0.5
MAX_EXTENT = 1.5


class SyntheticCXR(Dataset[dict[str, Any]]):
    """Phantom chest X-rays with pathologies or with Brixia severity.

    Args:
        num_images: how many.
        size: height and width in pixels, at least 32.
        seed: another seed is another population of patients.
        target: ``pathologies`` draws the eight of NIH ChestX-ray8 and labels them, float32 (8,). ``severity`` scores
            and draws opacities in the six Brixia zones instead; the label is their sum, a float32 scalar, 0 to 18.
            ``detectors`` draws the same images; the label is ``detector_label(zones)``, float32 (3,).
        images_per_patient: a patient's anatomy is fixed; pose, exposure and findings differ between the images.
        conspicuity: scales the contrast of all findings, above 0 to 2; at 1 they are clearly visible at 128 pixels.
        extent: scales the lengths of the findings of the lungs, .5 to 1.5.
        bilateral: draw these findings in both lungs, so that there are two cues, either of which shows the class.
        prevalence: probabilities that replace those of ``PREVALENCE``, by class.
        shortcut: strength, 0 to 1, with which a thing beside the patient is linked to a label, see
            ``data/phantom/foreign.py``; None: images are as usual, some with a marker. Needs ``target`` pathologies.
        shortcut_kind: ``marker``, ``tube`` or ``border``.
        shortcut_class: the pathology whose label it is linked to.
        first_patient: number of the first patient; data sets of disjoint patients differ in it.
        transform: from a grey image to the sample; None normalises only.

    Attributes:
        labels: the labels of all images, float32 (N, 8), (N, 3), or scores (N,).
        zones: the Brixia scores of all images, float32 (N, 6).

    Raises:
        ValueError: an argument outside its range, or an unknown class or target.

    Example:
        >>> sample = SyntheticCXR(num_images=1, size=64)[0]
        >>> sample["image"].shape, sample["label"].shape, sample["image_id"]
        (torch.Size([3, 64, 64]), torch.Size([8]), 'phantom-s0-000000')
    """

    def __init__(
        self,
        num_images: int = 1000,
        size: int = 224,
        seed: int = 0,
        target: Target = "pathologies",
        images_per_patient: int = 3,
        conspicuity: float = 1.0,
        prevalence: Mapping[str, float] | None = None,
        extent: float = 1.0,
        bilateral: bool = False,
        shortcut: float | None = None,
        shortcut_kind: Kind = "marker",
        shortcut_class: str = "Effusion",
        first_patient: int = 0,
        transform: ImageTransform | None = None,
    ) -> None:
        least = {"num_images": 1, "size": 32, "seed": 0, "images_per_patient": 1, "first_patient": 0}
        for name, value in zip(least, (num_images, size, seed, images_per_patient, first_patient), strict=True):
            if value < least[name]:
                raise ValueError(f"{name} is {value}: give at least {least[name]}")
        if target not in get_args(Target):
            raise ValueError(f"target is {target!r}: give one of {', '.join(get_args(Target))}")
        if not 0 < conspicuity <= MAX_CONSPICUITY:
            raise ValueError(f"conspicuity is {conspicuity}: give a number above 0, up to {MAX_CONSPICUITY}")
        if not MIN_EXTENT <= extent <= MAX_EXTENT:
            raise ValueError(f"extent is {extent}: give a number from {MIN_EXTENT} to {MAX_EXTENT}")
        for name, share in (prevalence or {}).items():
            if name not in PREVALENCE:
                raise ValueError(
                    f"prevalence names {name!r}, which the phantom does not have: use {', '.join(PATHOLOGIES)}"
                )
            if not 0 <= share <= 1:
                raise ValueError(f"prevalence of {name} is {share}: give a probability from 0 to 1")
        if shortcut is not None and target != "pathologies":
            raise ValueError(f"shortcut is {shortcut}, but target {target} has no classes: use target pathologies")
        if shortcut is None and (shortcut_kind, shortcut_class) != ("marker", "Effusion"):
            raise ValueError("shortcut_kind and shortcut_class need shortcut: give its strength, from 0 to 1")
        self.num_images = num_images
        self.size = size
        self.seed = seed
        self.target = target
        self.images_per_patient = images_per_patient
        self.appearance = Appearance(conspicuity, extent, bilateral)
        self.prevalence = {**PREVALENCE, **(prevalence or {})}
        self.shortcut = None if shortcut is None else Shortcut(shortcut, shortcut_kind, shortcut_class)
        self.first_patient = first_patient
        self.transform = transform or ImageTransform(size)
        drawn = [self._draw(index) for index in range(num_images)]
        self._present = np.stack([present for present, _ in drawn])  # drawn ahead, to be known without rendering
        self.zones = torch.from_numpy(np.stack([scores for _, scores in drawn])).float()
        if target == "pathologies":
            self.labels = torch.from_numpy(self._present).float()
        else:
            self.labels = target_label(self.zones, target)

    def __len__(self) -> int:
        """Return ``num_images``."""
        return self.num_images

    @property
    def image_ids(self) -> list[str]:
        """The names of all images."""
        return [self._image_id(self._number(index)) for index in range(self.num_images)]

    @property
    def patient_ids(self) -> list[str]:
        """Patient id of each image."""
        return [self._patient_id(self._number(index)) for index in range(self.num_images)]

    def radiograph(self, index: int) -> Radiograph:
        """Render image ``index`` with its masks, before any transform.

        Raises:
            IndexError: ``index`` outside 0 to ``num_images`` - 1.
        """
        number = self._number(index)
        return take(
            self.size,
            self.seed,
            patient=number // self.images_per_patient,
            number=number,
            present=[name for name, shown in zip(PATHOLOGIES, self._present[index], strict=True) if shown],
            scores=self.zones[index].long().numpy(),
            appearance=self.appearance,
            foreign=self.foreign(index),
        )

    def foreign(self, index: int) -> Foreign | None:
        """Return the shortcut drawn on image ``index``, or the object of its absence; None without ``shortcut``."""
        if self.shortcut is None:
            return None
        labelled = self._present[index, PATHOLOGIES.index(self.shortcut.of)]
        return self.shortcut.on(bool(labelled), random_stream(self.seed, SHORTCUT, self._number(index)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Render sample ``index`` with all keys of ``data/sample.py``."""
        radiograph = self.radiograph(index)
        masks = {"lung_mask": radiograph.lungs, "finding_masks": radiograph.findings}
        number = self._number(index)
        return {
            **self.transform(radiograph.pixels, radiograph.boxes, radiograph.box_labels, masks),
            "label": self.labels[index].clone(),
            "zones": self.zones[index].clone(),
            "image_id": self._image_id(number),
            "patient_id": self._patient_id(number),
        }

    def _number(self, index: int) -> int:
        """The image's number in the whole population, of which this data set is a part."""
        if not 0 <= index < self.num_images:
            raise IndexError(f"index {index} is outside this data set of {self.num_images} images")
        return self.first_patient * self.images_per_patient + index

    def _image_id(self, number: int) -> str:
        return f"phantom-s{self.seed}-{number:06d}"

    def _patient_id(self, number: int) -> str:
        return f"phantom-s{self.seed}-p{number // self.images_per_patient:05d}"

    def _draw(self, index: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Draw the pathologies (8,) and the zone scores (6,) of an image; one of the two is all zero."""
        rng = random_stream(self.seed, LABEL, self._number(index))
        if self.target != "pathologies":
            return np.zeros(len(PATHOLOGIES), bool), draw_scores(rng)
        shares = np.array([self.prevalence[name] for name in PATHOLOGIES])
        # a prevalence may exceed 1 - HEALTHY
        healthy = min(HEALTHY, 1 - shares.max())
        ill = rng.random() >= healthy
        return ill & (rng.random(len(PATHOLOGIES)) * (1 - healthy) < shares), np.zeros(NUM_ZONES, np.int64)


# fixed first patients: validation and test do not depend on the size of the training set
_FIRST_PATIENT: dict[Split, int] = {"train": 0, "val": 1_000_000, "test": 2_000_000}
_PATIENTS_PER_SPLIT = 1_000_000


class SyntheticDataModule(ChestXrayDataModule):
    """Serve phantom chest X-rays; no patient is in two splits.

    Args:
        num_train: training images.
        num_val: validation images.
        num_test: test images.
        size: side in pixels of the square images, at least 32.
        batch_size: images per batch (and per device).
        num_workers: processes that render; 0 renders in the main process.
        augment: see ``ChestXrayDataModule``.
        seed: another seed is another population of patients.
        target: ``pathologies``, ``severity`` or ``detectors``, see :class:`SyntheticCXR`.
        images_per_patient: images of each patient.
        conspicuity: scales the contrast of all findings.
        prevalence: probabilities that replace those of ``PREVALENCE``, by class.
        extent: scales the lengths of the findings of the lungs.
        bilateral: draw these findings in both lungs.
        shortcut: link a thing beside the patient to a label, with this strength, in all splits.
        shortcut_kind: ``marker``, ``tube`` or ``border``.
        shortcut_class: the pathology whose label it is linked to.
        shuffle_labels: see ``ChestXrayDataModule``.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        num_train: int = 1024,
        num_val: int = 256,
        num_test: int = 256,
        size: int = 224,
        batch_size: int = 32,
        num_workers: int = 0,
        augment: bool = False,
        seed: int = 0,
        target: Target = "pathologies",
        images_per_patient: int = 3,
        conspicuity: float = 1.0,
        prevalence: dict[str, float] | None = None,
        extent: float = 1.0,
        bilateral: bool = False,
        shortcut: float | None = None,
        shortcut_kind: Kind = "marker",
        shortcut_class: str = "Effusion",
        shuffle_labels: bool = False,
    ) -> None:
        super().__init__(
            size=size, batch_size=batch_size, num_workers=num_workers, augment=augment, shuffle_labels=shuffle_labels
        )
        self.num_images: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        for split, number in self.num_images.items():
            most = _PATIENTS_PER_SPLIT * images_per_patient
            if not 1 <= number <= most:
                raise ValueError(f"num_{split} is {number}: give a number from 1 to {most}")
        usual = (extent, bilateral) == (1.0, False)  # whose fingerprint is that of versions without these two
        drawn_by = (seed, target, images_per_patient, conspicuity, *(() if usual else (extent, bilateral)))
        self._drawn_by = (*drawn_by, *(() if shortcut is None else (shortcut, shortcut_kind, shortcut_class)))
        self._draw = partial(
            SyntheticCXR,
            size=size,
            seed=seed,
            target=target,
            images_per_patient=images_per_patient,
            conspicuity=conspicuity,
            prevalence=prevalence,
            extent=extent,
            bilateral=bilateral,
            shortcut=shortcut,
            shortcut_kind=shortcut_kind,
            shortcut_class=shortcut_class,
        )
        self.class_names = {"pathologies": PATHOLOGIES, "detectors": DETECTORS}.get(target, ())
        self.build("val", self._plain)  # costs nothing, and bad arguments fail here

    def fingerprint(self) -> str:
        """Hash of all an evaluation depends on, the parameters of the drawing included."""
        return fingerprint(self, *self._drawn_by)

    def build(self, split: Split, transform: ImageTransform) -> LabelledDataset:
        """Make the data set of one split."""
        return self._draw(self.num_images[split], first_patient=_FIRST_PATIENT[split], transform=transform)
