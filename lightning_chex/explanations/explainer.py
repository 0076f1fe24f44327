"""Explaining batches of images, and measuring how well the maps meet what is marked on them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from lightning_chex.attribution import (
    Attribution,
    Attributor,
    EveryPixel,
    RandomMap,
    empty_maps,
    frozen,
    shared_features,
)
from lightning_chex.attribution.network.outputs import output_tensor
from lightning_chex.data.contract import names_of, subgroups_of_batch
from lightning_chex.explanations.places import PlaceShares
from lightning_chex.maps import Cases, LungNetwork, Regions, cases_of, column_output, grey_pictures, region_kind
from lightning_chex.metrics import LocalizationIoU, intersection_over_union, pointing_game, top_fraction_mask
from lightning_chex.report import Explanation

CONTROLS: dict[str, Attributor] = {"random": RandomMap(), "every_pixel": EveryPixel()}


class Explainer:
    """Explains batches with one or several methods and measures the maps against regions, beside two controls.

    The methods share the images, the model's output, what is explained of them, and the controls.

    Args:
        attributors: the methods by name, already fitted; or one, which is called ``iba``.
        network: the network to explain, raw outputs (B, K) or, for a score, (B, 1).
        class_names: names of the K outputs; empty for a score.
        fraction: share of a map's pixels that counts as marked.
        device: where the metrics live, the network's device.
        precision: makes the context the network runs in; images are read and maps are measured outside of it.
        regions: what maps are measured against, see ``region_kind``.
        lungs: outlines the lungs of images without masks of them.
        exclusive: the classes exclude each other, and the network gives the logits of a softmax.
        top_alone: explain the class the model finds likeliest instead of those marked or labelled.
    """

    def __init__(
        self,
        attributors: Mapping[str, Attributor] | Attributor,
        network: nn.Module,
        class_names: Sequence[str],
        fraction: float,
        device: torch.device,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        regions: Regions = "auto",
        lungs: LungNetwork | None = None,
        exclusive: bool = False,
        top_alone: bool = False,
    ) -> None:
        self.lungs = None if lungs is None else lungs.to(device)
        self.attributors = {"iba": attributors} if isinstance(attributors, Attributor) else dict(attributors)
        self.network = network
        self.class_names = class_names
        self.exclusive = exclusive
        self.top_alone = top_alone
        self.fraction = fraction
        self.precision = precision
        self.regions = regions
        classes = max(1, len(class_names))
        self.iou = {name: LocalizationIoU(classes, fraction).to(device) for name in self.attributors}
        self.places = {name: PlaceShares(classes, device) for name in self.attributors}
        # empty maps and all maps, summed over the processes when they are logged
        self.empty_shares: dict[str, float] = {}
        self.empty = {name: MeanMetric().to(device) for name in self.attributors}
        # what a map that does not depend on the model scores under the same rule
        self.controls = MetricCollection({name: LocalizationIoU(classes, fraction) for name in CONTROLS}).to(device)

    def explain(self, batches: Iterable[dict[str, Any]]) -> Iterator[Explanation]:
        """Explain the images of the batches of `ImageSelection`; they are on the network's device.

        What is explained of an image: see ``cases_of``, with the likeliest class where nothing is known of it.
        """
        for batch in batches:
            with frozen(self.network), self.precision(), torch.no_grad():
                output = output_tensor(self.network(batch["image"])).float()
            flat = bool(self.class_names) and output.ndim == 1  # one class without a dimension for it
            output = output[:, None] if flat else output
            named = {"image_id": [f"image {place}" for place in batch["place"]], **batch}
            kind = region_kind(batch, self.class_names, self.regions)
            cases = cases_of(
                named,
                output,
                self.class_names,
                kind,
                likeliest=True,
                exclusive=self.exclusive,
                top_alone=self.top_alone,
            )
            marked = cases.regions.flatten(1).any(1)
            boxed = cases.select(marked.nonzero()[:, 0].tolist())
            for control, made in CONTROLS.items():
                maps = made.attribute(self.network, boxed.images, boxed.target, boxed.rows)
                self.controls[control].update(maps, boxed.regions, boxed.classes)
            grey = grey_pictures(cases.images)
            lungs = self._lungs_of(batch)
            lungs = None if lungs is None else lungs.any(1)[cases.rows]
            rows = cases.rows.tolist()
            told = subgroups_of_batch(batch)
            groups = None if told is None else [told[row] for row in rows]
            people = names_of(named.get("patient_id", named["image_id"]))
            patients = [str(people[row]) for row in rows]
            with column_output(self.network) if flat else nullcontext():
                attributions = self._found(cases)
            for name, found in attributions.items():
                self.empty[name].update(empty_maps(found.maps, self.attributors[name].unit).float())
                self.iou[name].update(found.maps[marked], boxed.regions, boxed.classes)
                self.places[name].update(found.maps, cases.classes, lungs, groups, patients)
                yield from self._explanations(name, cases, found, grey, batch)

    def _found(self, cases: Cases) -> dict[str, Attribution]:
        """Maps of each method, which share the features of the images."""
        images = cases.images
        if images.is_inference():  # each method would copy them, and share nothing
            with torch.inference_mode(False):
                images = images.clone()
        with self.precision(), shared_features():
            return {
                name: attributor.explain(self.network, images, cases.target, cases.rows)
                for name, attributor in self.attributors.items()
            }

    def _lungs_of(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Masks of both lungs, bool (B, 2, H, W): those of the data, or the network's."""
        if "lung_mask" in batch or self.lungs is None:
            return batch.get("lung_mask")
        return self.lungs(batch["image"])

    def _explanations(
        self, name: str, cases: Cases, found: Attribution, grey: Tensor, batch: Mapping[str, Any]
    ) -> Iterator[Explanation]:
        marked = cases.regions.flatten(1).any(1)
        iou = intersection_over_union(top_fraction_mask(found.maps, self.fraction), cases.regions)
        iou = iou.where(marked, torch.nan)
        pointing = pointing_game(found.maps, cases.regions)
        saliency = found.maps.cpu()
        for i, row in enumerate(cases.rows.tolist()):
            image, target = cases.keys[i]
            yield Explanation(
                image_id=image,
                image=grey[row],
                saliency=saliency[i],
                target=int(cases.target[i]) if self.class_names else None,
                target_name=target,
                prediction=float(cases.prediction[i]),
                truth=float(cases.truth[i]),
                boxes=cases.boxes[i],
                iou=_known(iou[i]),
                convergence=_known(found.convergence[i]),
                place=batch["place"][row],
                pointing=_known(pointing[i]),
                method=name,
                unit=self.attributors[name].unit,
                mark=batch["mark"][row] if "mark" in batch else "",
            )

    def scores(self, method: str | None = None) -> dict[str, Tensor]:
        """Localisation of all maps so far, over all distributed processes, which all must call this.

        Args:
            method: whose maps; by default those of the first.

        Returns:
            ``iou``, ``iou_random``, ``iou_every_pixel``; of classes also ``iou_class_mean`` and ``iou/NAME`` for those
            with regions. Nothing when no image had a region.
        """
        measured = self.iou[next(iter(self.iou)) if method is None else method].compute()
        controls = {name: metric.compute()["mean"] for name, metric in self.controls.items()}
        if measured["count"].sum() == 0:
            return {}
        found = {"iou": measured["mean"], **{f"iou_{name}": value for name, value in controls.items()}}
        if self.class_names:
            found["iou_class_mean"] = measured["class_mean"]
        # of a single class torchmetrics makes scalars
        counts = measured["count"].reshape(-1)
        means = measured["per_class"].reshape(-1)
        found |= {f"iou/{name}": means[c] for c, name in enumerate(self.class_names) if counts[c] > 0}
        return found

    def log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prefix: str) -> dict[str, float]:
        """Log all that was measured as ``PREFIX/METHOD_FIGURE``, and return the localisation of all methods."""
        several = trainer.world_size > 1  # the values are the same everywhere; said only to Lightning, which would warn
        logged: dict[str, float] = {}
        for method in self.attributors:
            for key, value in self.scores(method).items():
                pl_module.log(f"{prefix}/{method}_{key}", value, prog_bar=key == "iou", sync_dist=several)
                logged[f"{method}_{key}"] = float(value)
            for key, value in self.shares(method).items():
                pl_module.log(f"{prefix}/{method}_{key}", value, sync_dist=several)
            empty = self.empty[method].compute()
            pl_module.log(f"{prefix}/{method}_empty", empty, sync_dist=several)
            self.empty_shares[method] = float(empty)
        if not logged and self.class_names:
            rank_zero_warn("no image explained has an expert box or another region: maps are drawn, IoU is not logged")
        return logged

    def shares(self, method: str) -> dict[str, Tensor]:
        """Shares of a method's maps where no finding lies, see `PlaceShares.scores`; all processes must call this."""
        return self.places[method].scores(self.class_names)


def _known(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)
