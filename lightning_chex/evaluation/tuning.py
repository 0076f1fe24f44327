"""Size and location of the regions in the tuning half."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_chex.attribution import PriorMap
from lightning_chex.evaluation.subject import Images
from lightning_chex.maps import LungFinder, RegionKind, cases_of
from lightning_chex.metrics import zone_score_map


class TuningRegions:
    """Mean size and mean location of the regions of the tuning half.

    Attributes:
        share: mean share of an image a region covers; None without regions.
        prior: the mean region of each class (for a score, the mean picture of zone scores); None without regions.
        count: number of regions.
        images: number of tuning images.
    """

    def __init__(
        self, tuning: Images | None, class_names: Sequence[str], kind: RegionKind, find_lungs: LungFinder | None
    ) -> None:
        self._class_names = class_names
        self._kind = kind
        self._find_lungs = find_lungs
        self._sums: Tensor | None = None
        self._counts = torch.zeros(max(1, len(class_names)))
        self._covered = 0.0
        self.images = 0
        if tuning is not None:
            for batch in tuning.batches():
                self._add(batch)
        self.count = int(self._counts.sum())
        self.share = self._covered / self.count if self.count else None
        self.prior = self._prior()

    def _add(self, batch: dict[str, Any]) -> None:
        images = batch["image"]
        classes = len(self._counts)
        self.images += len(images)
        # regions come from annotations: the network is not run
        no_outputs = images.new_zeros(len(images), classes)
        cases = cases_of(batch, no_outputs, self._class_names, self._kind, self._find_lungs)
        cases = cases.select(cases.regions.flatten(1).any(1).nonzero()[:, 0].tolist())
        pictures = cases.regions.float()
        if not self._class_names and cases.zones is not None and cases.zone_scores is not None:
            pictures = zone_score_map(cases.zones, cases.zone_scores)
        if self._sums is None:
            self._sums = torch.zeros(classes, *images.shape[-2:])
        self._sums.index_add_(0, cases.classes.cpu(), pictures.cpu())
        self._counts += torch.bincount(cases.classes.cpu(), minlength=classes)
        self._covered += float(cases.regions.float().mean((1, 2)).sum())

    def _prior(self) -> PriorMap | None:
        if self._sums is None or not self.count:
            return None
        mean_of_all = self._sums.sum(0) / self.count
        # a class without a region takes the mean of all
        means = [total / count if count else mean_of_all for total, count in zip(self._sums, self._counts, strict=True)]
        return PriorMap(torch.stack(means))
