"""Phantom patients that no network was trained on; settings are chosen on others than those reported.

Training populations have the seeds 0, 1, 2 (one each network); `TUNING` and `REPORTED` are apart from them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from lightning_chex.data import PATHOLOGIES, SyntheticCXR
from lightning_chex.data.images.lung_masks import zone_masks

SIZE = 128
TUNING = 201
REPORTED = 301

LUNG_FINDINGS = ("Atelectasis", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia")
"""Those that the phantom can draw in both lungs, and in several sizes."""


@dataclass(frozen=True)
class Cases:
    """One finding each, on patients of whom each image is known with and without it.

    Attributes:
        images: with the finding, (N, 3, H, W).
        healthy: the same patients in the same view without it, (N, 3, H, W).
        regions: bool (N, R, H, W), its parts; R = 2 for one in each lung, else 1.
        target: class, int64 (N,).
        patients: N ids.
    """

    images: Tensor
    healthy: Tensor
    regions: Tensor
    target: Tensor
    patients: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, kept: Tensor) -> "Cases":
        """Those where ``kept``, bool (N,), is true."""
        rows = kept.nonzero()[:, 0].tolist()
        values = {own.name: getattr(self, own.name) for own in fields(self)}
        return Cases(**{k: [v[i] for i in rows] if isinstance(v, list) else v[rows] for k, v in values.items()})

    def at_most(self, number: int) -> "Cases":
        """``number`` of them, or all, spread evenly over their order and so over the classes."""
        kept = torch.zeros(len(self), dtype=torch.bool)
        kept[torch.linspace(0, len(self) - 1, min(number, len(self))).round().long()] = True
        return self.chosen(kept)

    @property
    def area(self) -> Tensor:
        """Pixels of the finding, (N,)."""
        return self.regions.any(1).flatten(1).sum(1)


@dataclass(frozen=True)
class Scored:
    """Images of severities.

    Attributes:
        images: (N, 3, H, W).
        zones: bool (N, 6, H, W).
        scores: float32 (N, 6), 0 to 3.
        patients: N ids.
    """

    images: Tensor
    zones: Tensor
    scores: Tensor
    patients: list[str]


def training_batches(target: Literal["pathologies", "severity"], seed: int, number: int = 100) -> Iterator[Tensor]:
    """Images a network was trained on, for the statistics of its features, (20, 3, H, W) at a time."""
    data = SyntheticCXR(number, SIZE, seed, target)
    for start in range(0, number, 20):
        yield torch.stack([data[index]["image"] for index in range(start, start + 20)])


def single_findings(number: int, names: Sequence[str] = PATHOLOGIES, seed: int = REPORTED, **options: object) -> Cases:
    """Images with one finding each, ``number`` patients in all; ``options`` go to `SyntheticCXR`."""
    parts = []
    for at, name in enumerate(names):
        own = number // len(names) + (at < number % len(names))
        if own:
            parts.append(_of_class(name, own, seed, at * 1000, options))
    joined = {}
    for own in fields(Cases):
        values = [getattr(part, own.name) for part in parts]
        joined[own.name] = sum(values, []) if own.name == "patients" else torch.cat(values)
    return Cases(**joined)


def two_cues(number: int, seed: int = REPORTED) -> Cases:
    """Findings in both lungs, two regions each: the one in the left half of the image first."""
    both = single_findings(number, LUNG_FINDINGS, seed, bilateral=True)
    left_half = torch.arange(SIZE) < SIZE // 2
    whole = both.regions[:, 0]
    regions = torch.stack([whole & left_half, whole & ~left_half], 1)
    return Cases(both.images, both.healthy, regions, both.target, both.patients)


def severities(number: int, seed: int = REPORTED, images_per_patient: int = 1) -> Scored:
    """Images of all severities."""
    data = SyntheticCXR(number, SIZE, seed, "severity", images_per_patient)
    return _scored(data, range(number))


def several_zones(number: int, score: int, seed: int = REPORTED) -> Scored:
    """Images of patients with this score in two to four of the six zones."""
    data = SyntheticCXR(40 * number, SIZE, seed, "severity", 1)
    zones = (data.zones == score).sum(1)
    return _scored(data, ((zones >= 2) & (zones <= 4)).nonzero()[:number, 0].tolist())


def raised_zone(number: int, seed: int = REPORTED) -> tuple[Scored, Scored, Tensor]:
    """The same images twice, with one zone scored 0 and then 3: before, after, and the zone, int64 (N,)."""
    data = SyntheticCXR(12 * number, SIZE, seed, "severity", 1)
    rows = []
    raised = []
    for index in range(len(data)):
        well = (data.zones[index] == 0).nonzero()[:, 0].tolist()
        if well and len(rows) < number:
            rows.append(index)
            raised.append(well[index % len(well)])
    before = []
    after = []
    zones = torch.stack([torch.from_numpy(zone_masks(data.radiograph(index).lungs)) for index in rows])
    for index, zone in zip(rows, raised, strict=True):
        before.append(data[index]["image"])
        data.zones[index, zone] = 3
        after.append(data[index]["image"])
    scores = data.zones[rows]
    others = scores.clone()
    others[torch.arange(len(rows)), raised] = 0
    patients = [data.patient_ids[index] for index in rows]
    return (
        Scored(torch.stack(before), zones, others, patients),
        Scored(torch.stack(after), zones, scores, patients),
        torch.tensor(raised),
    )


def mixed_findings(number: int, seed: int = REPORTED) -> SyntheticCXR:
    """Images as the networks were trained on: any findings, or none."""
    return SyntheticCXR(number, SIZE, seed, images_per_patient=1)


def _of_class(name: str, number: int, seed: int, first_patient: int, options: Mapping[str, object]) -> Cases:
    def population(shares: dict[str, float]) -> SyntheticCXR:
        return SyntheticCXR(
            number, SIZE, seed, images_per_patient=1, prevalence=shares, first_patient=first_patient, **options
        )

    ill = population({other: float(other == name) for other in PATHOLOGIES})
    well = population(dict.fromkeys(PATHOLOGIES, 0.0))
    k = PATHOLOGIES.index(name)
    samples = _all(ill)
    return Cases(
        torch.stack([sample["image"] for sample in samples]),
        torch.stack([sample["image"] for sample in _all(well)]),
        torch.stack([sample["finding_masks"][k].bool() for sample in samples])[:, None],
        torch.full((number,), k),
        ill.patient_ids,
    )


def _scored(data: SyntheticCXR, rows: Sequence[int]) -> Scored:
    zones = [torch.from_numpy(zone_masks(data.radiograph(index).lungs)) for index in rows]
    images = torch.stack([data[index]["image"] for index in rows])
    patients = data.patient_ids
    return Scored(images, torch.stack(zones), data.zones[list(rows)], [patients[index] for index in rows])


def _all(data: SyntheticCXR) -> list[dict]:
    return [data[index] for index in range(len(data))]
