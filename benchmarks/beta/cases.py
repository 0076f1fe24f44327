"""What the sweeps explain: phantom images of populations that no training, validation or test has seen.

`SyntheticDataModule` draws its three splits from seed 0 by default; the seeds here are others, so nothing that is
reported elsewhere rests on these images. The features' statistics come from the training images themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from lightning_chex.data import PATHOLOGIES, SyntheticCXR
from lightning_chex.data.images.lung_masks import zone_masks
from lightning_chex.data.sets.synthetic import Target
from lightning_chex.tasks import ClassificationTask, RegressionTask

SEEDS = {"classes": 101, "cues": 102, "scores": 103}
SIZE = 224
TWO_CUES = ("Nodule", "Effusion", "Infiltration")
"""The findings that the phantom draws in one or in several places."""


@dataclass(frozen=True)
class Cases:
    """What is explained, one row a case.

    Attributes:
        images: (N, 3, H, W).
        target: int64 (N,) classes, or float32 (N,) true scores.
        patients: whom each image shows, N of them.
        regions: bool (N, R, H, W): the finding (R = 1), its two cues (R = 2), or the six Brixia zones (R = 6).
        zones: float32 (N, 6), the zones' scores; 0 where classes are explained.
    """

    images: Tensor
    target: Tensor
    patients: list[str]
    regions: Tensor
    zones: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def first(self, number: int) -> "Cases":
        return Cases(
            self.images[:number],
            self.target[:number],
            self.patients[:number],
            self.regions[:number],
            self.zones[:number],
        )


def classifier(path: Path) -> nn.Module:
    return ClassificationTask.load_from_checkpoint(path, map_location="cpu", weights_only=True).model.eval()


def regressor(path: Path) -> nn.Module:
    return RegressionTask.load_from_checkpoint(path, map_location="cpu", weights_only=True).model.eval()


def training_batches(target: Target, number: int = 200, batch: int = 20) -> Iterator[Tensor]:
    """Images the networks were trained on, for the statistics."""
    data = SyntheticCXR(num_images=number, size=SIZE, seed=0, target=target)
    for start in range(0, number, batch):
        yield torch.stack([data[index]["image"] for index in range(start, start + batch)])


def class_cases(model: nn.Module, number: int) -> Cases:
    """Findings the network recognises, as many of each class as there are, up to an eighth of ``number``."""
    data = SyntheticCXR(num_images=20 * number, size=SIZE, seed=SEEDS["classes"], images_per_patient=1)
    left = dict.fromkeys(range(len(PATHOLOGIES)), number // len(PATHOLOGIES))
    rows = []
    for index in range(len(data)):
        wanted = [int(k) for k in data.labels[index].nonzero() if left[int(k)]]
        if not wanted:
            continue
        sample = data[index]
        seen = probabilities(model, sample["image"][None])[0]
        for k in wanted:
            if seen[k] >= 0.5 and sample["finding_masks"][k].any():
                left[k] -= 1
                rows.append((sample["image"], k, sample["patient_id"], sample["finding_masks"][k][None].bool()))
        if not any(left.values()):
            break
    # in an order that mixes the classes: the first rows serve for what costs more
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return _gathered([rows[i] for i in order])


def two_cue_cases(model: nn.Module, number: int) -> Cases:
    """Images of one finding in two separate places, of which either alone suffices for the network.

    An image with one cue is the image with both, where the other's pixels are those of the same patient in the same
    view without a finding; the phantom's streams of chance are apart, so nothing else differs between the two.
    """
    rows = []
    for name in TWO_CUES:
        k = PATHOLOGIES.index(name)
        ill, well = (_population(8 * number, name if shown else None) for shown in (True, False))
        found = 0
        for index in range(len(ill)):
            if found == number // len(TWO_CUES):
                break
            parts = _two_parts(ill.radiograph(index).findings[k])
            if parts is None:
                continue
            image = ill[index]["image"]
            without = well[index]["image"]
            first, second = (torch.where(part, image, without) for part in parts)
            seen = probabilities(model, torch.stack([first, second, without]))[:, k]
            if seen[0] >= 0.5 and seen[1] >= 0.5 and seen[2] < 0.5:
                found += 1
                rows.append((image, k, ill.patient_ids[index], parts))
    return _gathered(rows)


def score_cases(number: int) -> Cases:
    """Images of every severity, with zones and their scores."""
    data = SyntheticCXR(num_images=number, size=SIZE, seed=SEEDS["scores"], target="severity", images_per_patient=1)
    samples = [data[index] for index in range(number)]
    zones = [torch.from_numpy(zone_masks(data.radiograph(index).lungs)) for index in range(number)]
    return Cases(
        torch.stack([sample["image"] for sample in samples]),
        data.labels,
        data.patient_ids,
        torch.stack(zones),
        data.zones,
    )


@torch.no_grad()
def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).sigmoid()


def _population(number: int, finding: str | None) -> SyntheticCXR:
    prevalence = {name: float(name == finding) for name in PATHOLOGIES}
    return SyntheticCXR(num_images=number, size=SIZE, seed=SEEDS["cues"], images_per_patient=1, prevalence=prevalence)


def _two_parts(mask: np.ndarray) -> Tensor | None:
    """The two parts (2, H, W) of a mask, or None if it has another number of parts."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    return torch.from_numpy(np.stack([labels == 1, labels == 2])) if count == 3 else None


def _gathered(rows: list[tuple[Tensor, int, str, Tensor]]) -> Cases:
    images, classes, patients, regions = zip(*rows, strict=True)
    return Cases(
        torch.stack(images), torch.tensor(classes), list(patients), torch.stack(regions), torch.zeros(len(rows), 6)
    )
