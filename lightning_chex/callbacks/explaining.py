"""Explaining batches of images: which class of which image, the maps, and how well they meet the boxes."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_chex.attribution import Attribution, Attributor, EveryPixel, RandomMap, frozen
from lightning_chex.metrics import (
    LocalizationIoU,
    boxes_to_mask,
    intersection_over_union,
    top_fraction_mask,
)
from lightning_chex.reporting import Explanation

CONTROLS: dict[str, Attributor] = {"random": RandomMap(), "every_pixel": EveryPixel()}


class Explainer:
    """Explains batches with one attributor and measures the maps against expert boxes, beside two controls.

    Args:
        attributor: the method, already fitted.
        network: the network to explain, raw outputs (B, K) or, for a score, (B, 1).
        class_names: names of the K outputs; empty for a score.
        fraction: share of a map's pixels that counts as marked.
        device: where the metrics live, the network's device.
        precision: makes the context the network runs in; images are read and maps are measured outside of it.
    """

    def __init__(
        self,
        attributor: Attributor,
        network: nn.Module,
        class_names: Sequence[str],
        fraction: float,
        device: torch.device,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.attributor = attributor
        self.network = network
        self.class_names = class_names
        self.fraction = fraction
        self.precision = precision
        classes = max(1, len(class_names))
        # a control needs no model: what a map that knows nothing would score under the same rule
        self.iou = LocalizationIoU(classes, fraction).to(device)
        self.controls = MetricCollection({name: LocalizationIoU(classes, fraction) for name in CONTROLS}).to(device)

    def explain(self, batches: Iterable[dict[str, Any]]) -> Iterator[Explanation]:
        """Explain every target of every image of the batches of `ShownImages`; they are on the network's device.

        Classes with an expert box are explained; without boxes the positive labels; without those the class the model
        finds most likely. A score is explained once per image.
        """
        for batch in batches:
            with frozen(self.network), self.precision(), torch.no_grad():
                output = self.network(batch["image"]).float()
            rows, targets = self._targets(batch, output)
            with self.precision():
                found = self.attributor.explain(self.network, batch["image"], targets, rows)
            saliency = found.maps
            regions, boxes = self._regions(batch, rows, targets, saliency.shape[-2:])
            boxed = regions.flatten(1).any(1)
            if self.class_names:
                self._measure(batch["image"], rows[boxed], targets[boxed], saliency[boxed], regions[boxed])
            iou = intersection_over_union(top_fraction_mask(saliency, self.fraction), regions)
            yield from self._explanations(batch, output, rows, targets, found, boxes, boxed, iou)

    def _targets(self, batch: dict[str, Any], output: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs of an image's row in the batch and what to explain of it: a class index, or the true score."""
        if not self.class_names:
            return torch.arange(len(output), device=output.device), batch["label"].reshape(-1)
        rows: list[int] = []
        targets: list[int] = []
        likeliest = output.argmax(1).tolist()
        positive = [label.nonzero()[:, 0].tolist() for label in batch["label"]]
        for row in range(len(output)):
            boxed = sorted(set(batch["box_labels"][row].tolist())) if "box_labels" in batch else []
            chosen = boxed or positive[row] or [likeliest[row]]
            rows += [row] * len(chosen)
            targets += chosen
        return torch.tensor(rows, device=output.device), torch.tensor(targets, device=output.device)

    def _regions(
        self, batch: dict[str, Any], rows: Tensor, targets: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Union of each target's expert boxes, bool (N, H, W), and the boxes themselves."""
        regions = torch.zeros(len(rows), *size, dtype=torch.bool, device=rows.device)
        boxes = [torch.zeros(0, 4)] * len(rows)
        if not self.class_names or "boxes" not in batch:
            return regions, boxes
        for i, (row, target) in enumerate(zip(rows.tolist(), targets.tolist(), strict=True)):
            own = batch["boxes"][row][batch["box_labels"][row] == target]
            regions[i] = boxes_to_mask(own, (size[0], size[1]))
            boxes[i] = own.cpu()
        return regions, boxes

    def _measure(self, images: Tensor, rows: Tensor, targets: Tensor, saliency: Tensor, regions: Tensor) -> None:
        self.iou.update(saliency, regions, targets)
        for name, control in CONTROLS.items():
            self.controls[name].update(control.attribute(self.network, images, targets, rows), regions, targets)

    def _explanations(
        self,
        batch: dict[str, Any],
        output: Tensor,
        rows: Tensor,
        targets: Tensor,
        found: Attribution,
        boxes: list[Tensor],
        boxed: Tensor,
        iou: Tensor,
    ) -> Iterator[Explanation]:
        grey = batch["image"].float().mean(1).cpu()
        saliency, convergence = found.maps.cpu(), found.convergence.tolist()
        predictions = output.sigmoid() if self.class_names else output.reshape(-1)
        for i, (row, target) in enumerate(zip(rows.tolist(), targets.tolist(), strict=True)):
            shade = grey[row] - grey[row].min()
            yield Explanation(
                image_id=batch["image_id"][row] if "image_id" in batch else f"image {batch['place'][row]}",
                image=shade / shade.max().clamp(min=1e-6),
                saliency=saliency[i],
                target=target if self.class_names else None,
                target_name=self.class_names[target] if self.class_names else "severity",
                prediction=float(predictions[row, target] if self.class_names else predictions[row]),
                truth=float(batch["label"][row, target] if self.class_names else target),
                boxes=boxes[i],
                iou=float(iou[i]) if boxed[i] else None,
                convergence=None if math.isnan(convergence[i]) else convergence[i],
                place=batch["place"][row],
            )

    def scores(self) -> dict[str, Tensor]:
        """Localisation of all maps so far, over all distributed processes, which all must call this.

        Returns:
            ``iou``, ``iou_class_mean``, ``iou_random``, ``iou_every_pixel`` and ``iou/NAME`` for the classes with
            boxes; nothing when no image had a box.
        """
        if not self.class_names:
            return {}
        measured = self.iou.compute()
        controls = {name: metric.compute()["mean"] for name, metric in self.controls.items()}
        if measured["count"].sum() == 0:
            return {}
        per_class = {
            f"iou/{name}": measured["per_class"][c]
            for c, name in enumerate(self.class_names)
            if measured["count"][c] > 0
        }
        return {
            "iou": measured["mean"],
            "iou_class_mean": measured["class_mean"],
            **{f"iou_{name}": value for name, value in controls.items()},
            **per_class,
        }
