"""Cases: the explained target of each image, and the regions its map is compared with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_chex.class_names import DETECTED_SCORES, SCORE
from lightning_chex.data import lung_zones
from lightning_chex.data.contract import names_of
from lightning_chex.maps.store import Key
from lightning_chex.metrics import boxes_to_mask

RegionKind = Literal["boxes", "masks", "zones"]
Regions = Literal["auto", "boxes", "masks", "zones"]


@dataclass(frozen=True)
class Cases:
    """N explained targets of the B images of a batch, on the images' device.

    Attributes:
        images: (B, C, H, W).
        rows: the image of each target, int64 (N,).
        target: class indices, int64 (N,); for a score the true one, float32 (N,).
        keys: image id and target name of each.
        patients: who is shown, N.
        prediction: the model's probability of the class, or its score, (N,).
        truth: label of the class, or the true score, (N,).
        regions: what each map is judged by, bool (N, H, W); empty without an annotation.
        boxes: expert boxes behind the regions, N of (M, 4) x1, y1, x2, y2; M is 0 without.
        zones: the six lung zones, bool (N, 6, H, W), empty where the lungs are unknown; None where there are no scores.
        zone_scores: their Brixia scores, (N, 6), or None.
    """

    images: Tensor
    rows: Tensor
    target: Tensor
    keys: list[Key]
    patients: list[str]
    prediction: Tensor
    truth: Tensor
    regions: Tensor
    boxes: list[Tensor]
    zones: Tensor | None
    zone_scores: Tensor | None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def classes(self) -> Tensor:
        """Class index of each, int64 (N,); 0 for a score."""
        return torch.zeros_like(self.rows) if self.target.is_floating_point() else self.target

    @property
    def column(self) -> Tensor | None:
        """The column of the model's output each is judged by; None for a score."""
        return None if self.target.is_floating_point() else self.target

    def select(self, chosen: Sequence[int]) -> "Cases":
        """The chosen targets, with all images."""
        index = torch.tensor(list(chosen), dtype=torch.int64, device=self.rows.device)
        return Cases(
            images=self.images,
            rows=self.rows[index],
            target=self.target[index],
            keys=[self.keys[i] for i in chosen],
            patients=[self.patients[i] for i in chosen],
            prediction=self.prediction[index],
            truth=self.truth[index],
            regions=self.regions[index],
            boxes=[self.boxes[i] for i in chosen],
            zones=None if self.zones is None else self.zones[index],
            zone_scores=None if self.zone_scores is None else self.zone_scores[index],
        )


LungFinder = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) to lungs bool (B, 2, H, W), the patient's right one first."""


def region_kind(sample: Mapping[str, Any], class_names: Sequence[str], asked: Regions = "auto") -> RegionKind:
    """Return the kind of region that the maps of a sample's data set are compared with.

    Args:
        sample: a sample or a batch.
        class_names: of the model; empty for a score.
        asked: ``auto`` takes the zones where there are scores and the model predicts these, else the boxes.

    Raises:
        ValueError: samples lack what is asked for, or zones say nothing of these classes.
    """
    about_zones = not class_names or set(class_names) <= DETECTED_SCORES.keys()
    if asked == "auto":
        return "zones" if "zones" in sample and about_zones else "boxes"
    needed = {"boxes": "boxes", "masks": "finding_masks", "zones": "zones"}[asked]
    if needed not in sample:
        raise ValueError(f"regions={asked!r} needs samples with {needed!r}; these have {', '.join(sample)}")
    if asked == "zones" and not about_zones:
        raise ValueError(f"regions='zones' is for a score or the detectors, not for {', '.join(class_names)}")
    return asked


def cases_of(
    batch: dict[str, Any],
    output: Tensor,
    class_names: Sequence[str],
    kind: RegionKind,
    find_lungs: LungFinder | None = None,
    likeliest: bool = False,
    exclusive: bool = False,
    top_alone: bool = False,
) -> Cases:
    """Choose what of a batch is explained.

    The classes with a region (box or mask) of an image are; without any, or judged by zones, its positive labels. A
    score is explained once per image.

    Args:
        batch: see ``data/sample.py``, on one device.
        output: of the model, (B, K) logits, or (B, 1) or (B,) scores.
        class_names: names of the K classes; empty for a score.
        kind: what the maps are judged by.
        find_lungs: outlines the lungs of images without masks; None leaves them unknown.
        likeliest: explain the class the model finds likeliest where an image has neither region nor label; else it is
            left out.
        exclusive: probabilities are a softmax over the classes, else a sigmoid of each.
        top_alone: of each image explain the class the model finds likeliest, and no other.
    """
    images = batch["image"]
    ids = names_of(batch["image_id"])
    size = (images.shape[-2], images.shape[-1])
    zones = _zones(batch, size, find_lungs) if "zones" in batch and kind == "zones" else None
    rows = []
    target = []
    regions = []
    boxes = []
    nothing = torch.zeros(size, dtype=torch.bool), torch.zeros(0, 4)
    top = output.argmax(1).tolist() if class_names and (likeliest or top_alone) else []
    for row in range(len(images)):
        found = _targets(batch, row, class_names, kind, zones, size)
        if top_alone and class_names:
            found = [own for own in found if own[0] == top[row]]
        if not found and top:
            found = [(top[row], *nothing)]
        for value, region, own in found:
            rows.append(row)
            target.append(value)
            regions.append(region.to(images.device))
            boxes.append(own.cpu())
    index = torch.tensor(rows, dtype=torch.int64, device=images.device)
    output = output.float()
    label = batch["label"].float()
    if class_names:
        values = torch.tensor(target, dtype=torch.int64, device=images.device)
        probability = output.softmax(1) if exclusive else output.sigmoid()
        prediction = probability[index, values]
        truth = label[index, values]
    else:
        values = torch.tensor(target, dtype=torch.float32, device=images.device)
        prediction = output.reshape(-1)[index]
        truth = values
    patients = names_of(batch.get("patient_id", ids))
    return Cases(
        images=images,
        rows=index,
        target=values,
        keys=[(ids[r], class_names[int(t)] if class_names else SCORE) for r, t in zip(rows, target, strict=True)],
        patients=[patients[r] for r in rows],
        prediction=prediction,
        truth=truth,
        regions=torch.stack(regions) if regions else torch.zeros(0, *size, dtype=torch.bool, device=images.device),
        boxes=boxes,
        zones=None if zones is None else zones[index],
        zone_scores=None if zones is None else batch["zones"].float()[index],
    )


def _targets(
    batch: dict[str, Any],
    row: int,
    class_names: Sequence[str],
    kind: RegionKind,
    zones: Tensor | None,
    size: tuple[int, int],
) -> list[tuple[float, Tensor, Tensor]]:
    """Target, region and boxes of everything that is explained of an image."""
    nothing = torch.zeros(size, dtype=torch.bool)
    no_boxes = torch.zeros(0, 4)
    scores = batch["zones"][row] if zones is not None else None
    if not class_names:
        region = nothing if zones is None or scores is None else zones[row][scores > 0].any(0)
        return [(float(batch["label"][row]), region, no_boxes)]
    positive = (batch["label"][row] > 0).nonzero()[:, 0].tolist()  # NaN stands for unknown
    if kind == "zones":
        found = []
        for k in positive:
            region = nothing
            if zones is not None and scores is not None:
                looked_for = torch.tensor(DETECTED_SCORES[class_names[k]], device=scores.device)
                region = zones[row][torch.isin(scores.round().long(), looked_for)].any(0)
            found.append((k, region, no_boxes))
        return found
    if kind == "masks":
        return [(k, batch["finding_masks"][row, k], no_boxes) for k in positive]
    boxed = sorted(set(batch["box_labels"][row].tolist())) if "box_labels" in batch else []
    if not boxed:
        return [(k, nothing, no_boxes) for k in positive]
    own = [batch["boxes"][row][batch["box_labels"][row] == k] for k in boxed]
    return [(k, boxes_to_mask(box, size), box) for k, box in zip(boxed, own, strict=True)]


def _zones(batch: dict[str, Any], size: tuple[int, int], find_lungs: LungFinder | None) -> Tensor:
    """The six zones of each image, bool (B, 6, H, W); empty where the lungs are unknown."""
    images = batch["image"]
    lungs = batch.get("lung_mask")
    if lungs is None:
        lungs = torch.zeros(len(images), 2, *size, dtype=torch.bool, device=images.device)
    unknown = ~lungs.flatten(1).any(1)
    if find_lungs is not None and unknown.any():
        lungs = lungs.clone()
        lungs[unknown] = find_lungs(images[unknown])
    return torch.stack([lung_zones(lung) for lung in lungs])


def grey_pictures(images: Tensor) -> Tensor:
    """Network inputs (B, C, H, W) as grey values in [0, 1] on the CPU, (B, H, W); each stretched to its own range."""
    grey = images.float().mean(1).cpu()
    low = grey.amin((1, 2), keepdim=True)
    high = grey.amax((1, 2), keepdim=True)
    return (grey - low) / (high - low).clamp(min=1e-6)
