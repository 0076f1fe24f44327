"""Size and location of the regions in the tuning half."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_chex.attribution import PriorMap
from lightning_chex.explaining import Images, LungFinder, RegionKind, cases_of
from lightning_chex.metrics import zone_score_map


class TuningRegions:
    """Mean size and mean location of the regions of the tuning half.

    Attributes:
        share: mean share of an image a region covers; None without regions.
        prior: the mean region of each class (for a score, the mean picture of zone scores); None without regions.
        count: regions.
        images: tuning images looked at.
    """

    def __init__(
        self, tuning: Images | None, class_names: Sequence[str], kind: RegionKind, find_lungs: LungFinder | None
    ) -> None:
        sums: Tensor | None = None
        classes = max(1, len(class_names))
        number = torch.zeros(classes)
        covered = 0.0
        self.images = 0
        for batch in tuning.batches() if tuning is not None else ():
            images = batch["image"]
            self.images += len(images)
            cases = cases_of(batch, images.new_zeros(len(images), classes), class_names, kind, find_lungs)
            cases = cases.select(cases.regions.flatten(1).any(1).nonzero()[:, 0].tolist())
            pictures = cases.regions.float()
            if not class_names and cases.zones is not None and cases.zone_scores is not None:
                pictures = zone_score_map(cases.zones, cases.zone_scores)
            sums = torch.zeros(classes, *images.shape[-2:]) if sums is None else sums
            sums.index_add_(0, cases.classes.cpu(), pictures.cpu())
            number += torch.bincount(cases.classes.cpu(), minlength=classes)
            covered += float(cases.regions.float().mean((1, 2)).sum())
        self.count = int(number.sum())
        self.share = covered / self.count if self.count else None
        self.prior = None
        if sums is not None and self.count:
            # a class without a region takes the mean of all
            means = [own / n if n else sums.sum(0) / self.count for own, n in zip(sums, number, strict=True)]
            self.prior = PriorMap(torch.stack(means))
