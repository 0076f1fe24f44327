"""How maps are judged: one number a case for every measure."""

import torch
from torch import Tensor, nn

from benchmarks.beta.cases import Cases
from lightning_chex.metrics import (
    insertion_deletion,
    intersection_over_union,
    pointing_game,
    relevance_correlation,
    severity_correlation,
    top_fraction_mask,
    zone_relevance,
)

FRACTION = 0.05
"""Share of the pixels that IoU marks."""

RECALL_FRACTION = 0.10
"""Share of the pixels that the recall of cues marks, the same for every method."""

REACH = 0.3
STEP = 0.05
"""Insertion and deletion: the strongest 30 % of the pixels, 5 % at a time."""


def of_findings(maps: Tensor, cases: Cases) -> dict[str, Tensor]:
    region = cases.regions[:, 0]
    marked = top_fraction_mask(maps, FRACTION)
    return {
        "bits": maps.sum((1, 2)),
        "iou": intersection_over_union(marked, region),
        "pointing": pointing_game(maps, region),
    }


def of_cues(maps: Tensor, cases: Cases) -> dict[str, Tensor]:
    """Recall of the cue found worse and of both, at a share of the image and at the share the cues cover."""
    both = cases.regions.any(1)
    share = both.flatten(1).float().mean(1)
    fixed = top_fraction_mask(maps, RECALL_FRACTION)
    exact = torch.cat([top_fraction_mask(one[None], float(own)) for one, own in zip(maps, share, strict=True)])
    return {
        "bits": maps.sum((1, 2)),
        "worse": _recall(fixed, cases.regions).amin(1),
        "both": _recall(fixed, both[:, None])[:, 0],
        "worse_exact": _recall(exact, cases.regions).amin(1),
    }


def of_scores(maps: Tensor, cases: Cases) -> dict[str, Tensor]:
    relevance = zone_relevance(maps, cases.regions)
    return {
        "bits": maps.sum((1, 2)),
        "pixels": severity_correlation(maps, cases.regions, cases.zones),
        "zones": relevance_correlation(relevance, cases.zones),
    }


def perturbed(model: nn.Module, maps: Tensor, cases: Cases, number: int) -> dict[str, Tensor]:
    """Insertion and deletion of the first ``number`` cases; NaN for the others. The network runs in bfloat16."""
    some = cases.first(number)
    maps = maps[:number]
    scores = cases.target.is_floating_point()

    def predict(images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(images).float()
        return output[:, 0] if scores else output.sigmoid()

    curves = insertion_deletion(
        predict,
        some.images,
        maps,
        target=None if scores else some.target,
        step=round(STEP * maps[0].numel()),
        fraction=REACH,
    )
    nothing = torch.full((len(cases) - len(some),), torch.nan)
    return {
        "insertion": torch.cat([curves.insertion_auc, nothing]),
        "deletion": torch.cat([curves.deletion_auc, nothing]),
    }


def _recall(marked: Tensor, regions: Tensor) -> Tensor:
    """Share of each region's pixels that are marked, (N, R)."""
    hits = (marked[:, None] & regions).flatten(2).sum(2)
    return hits / regions.flatten(2).sum(2)
