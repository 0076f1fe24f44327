"""The severity detectors (section 3.2, Table 2), and all zones of one score (Fig. 1, right)."""

import torch
from torch import Tensor, nn

from benchmarks.claims.layers import compared
from benchmarks.claims.populations import Scored, several_zones, severities
from benchmarks.claims.study import (
    LAYER,
    LAYERS,
    RULE,
    Claim,
    Measured,
    Sample,
    Study,
    Table,
    marked,
    outputs,
)
from benchmarks.pages import estimate
from lightning_chex.attribution import LRP, Attributor, GradCAM, Gradient, IntegratedGradients, MultiLayerIBA, RandomMap
from lightning_chex.data import DETECTORS

PAPER = {
    "Grad-CAM": (0.11, 0.0, 0.011),
    "Integrated Gradients": (0.176, 0.13, 0.14),
    "LRP": (0.0, 0.0, 0.0),
    "gradient": (0.04, 0.019, 0.052),
    "IBA": (0.145, 0.13, 0.222),
    "Inverse IBA": (0.194, 0.245, 0.243),
    "Multi-layer IBA, gated": (0.171, 0.257, 0.257),
}
"""Mean IoU of Table 2, one value a detector."""

IN_LUNGS = "random map within the lungs"


def claim(study: Study) -> Claim:
    """Whether Inverse IBA finds more of all zones of score 3 than IBA; IoU of every method with a detector's zones."""
    sample = study.sample("detectors", measure)
    several = study.sample("detectors-zones", measure_several)
    names = list(dict.fromkeys(key.split("|")[1] for key in several.values))
    iba = "worse|IBA"
    inverse = "worse|Inverse IBA"
    difference = several.difference(inverse, iba)
    by_seed = several.by_seed(inverse, iba)
    return Claim(
        "All zones of one score",
        "Inverse IBA identifies all zones with a score of 3 where IBA identifies those that suffice (Fig. 1, right).",
        several.decided(inverse, iba),
        "Where two to four zones score 3, the one that is found least is found better by Inverse IBA than by IBA, with "
        f"as many pixels marked as these zones have. {RULE}",
        f"Recall of the zone found least, Inverse IBA less IBA: {estimate(difference, signed=True)}, by network "
        f"{', '.join(f'{own:+.3f}' for own in by_seed)}.",
        [
            Table(
                "Zones of score 3, two to four of them",
                [
                    {
                        "method": name,
                        "recall of the zone found least": estimate(several.mean(f"worse|{name}")),
                        "all found (half of each)": estimate(several.mean(f"all|{name}")),
                        "n": several.mean(f"worse|{name}").n,
                    }
                    for name in names
                ],
            ),
            Table(
                "IoU with the zones of each detector; in brackets that of the paper's Table 2",
                [of_method(sample, name) for name in names],
            ),
        ],
        [
            "As many pixels are marked as the zones have; the paper marks those above a threshold that it does not "
            "name, of real X-rays and other networks, so that its figures and ours are of different quantities.",
            "A zone is a third of a lung and has a score by itself, but what shows the score covers only part of it.",
        ],
    )


def of_method(sample: Sample, name: str) -> dict[str, str]:
    """IoU with the zones of each detector."""
    row = {"method": name}
    for k, detector in enumerate(DETECTORS):
        paper = f" [{PAPER[name][k]:g}]" if name in PAPER else ""
        row[detector] = f"{estimate(sample.mean(f'iou|{name}|{k}'))}{paper}"
    return row


def measure(study: Study, seed: int) -> Measured:
    """Overlap of the maps of each detector with its zones, where the image has some and the network sees them."""
    scored = severities(study.cases)
    network = study.network("detectors", seed)
    seen = outputs(network, scored.images).sigmoid() >= 0.5
    values = {}
    for name, method in methods(study, seed).items():
        for k in range(len(DETECTORS)):
            zones = of_detector(scored, k)
            region = (zones[..., None, None] & scored.zones).any(1)
            iou = compared(maps_of(method, network, scored, k, name), region, region.flatten(1).sum(1), name)
            values[f"iou|{name}|{k}"] = torch.where(zones.any(1) & seen[:, k], iou[f"iou|{name}"], torch.nan)
    return scored.patients, values


def measure_several(study: Study, seed: int) -> Measured:
    """Recall of the zones of score 3 where there are several, of the images in which the network sees them."""
    scored = several_zones(study.cases, 3)
    network = study.network("detectors", seed)
    last = len(DETECTORS) - 1
    seen = outputs(network, scored.images)[:, last].sigmoid() >= 0.5
    values = {}
    zones = of_detector(scored, last)
    area = (zones[..., None, None] & scored.zones).any(1).flatten(1).sum(1)
    for name, method in methods(study, seed).items():
        where = marked(maps_of(method, network, scored, last, name), area)
        recall = recalls(where, scored.zones, zones)
        values[f"worse|{name}"] = torch.where(seen, recall, torch.nan)
        values[f"all|{name}"] = torch.where(seen, (recall >= 0.5).float(), torch.nan)
    return scored.patients, values


def maps_of(method: Attributor, network: nn.Module, scored: Scored, detector: int, name: str) -> Tensor:
    """Maps of a detector, (N, H, W)."""
    maps = method.attribute(network, scored.images, torch.full((len(scored.images),), detector)).float()
    return maps * scored.zones.any(1) if name == IN_LUNGS else maps


def of_detector(scored: Scored, detector: int) -> Tensor:
    """The zones that a detector detects, bool (N, 6): scored 0 or 1, 2, 3."""
    return scored.scores <= 1 if detector == 0 else scored.scores == detector + 1


def recalls(where: Tensor, zones: Tensor, chosen: Tensor) -> Tensor:
    """Share of its pixels that is marked, of the chosen zone found least, (N,); infinite where none is chosen.

    Args:
        where: marked pixels, bool (N, H, W).
        zones: bool (N, 6, H, W).
        chosen: bool (N, 6).
    """
    share = (where[:, None] & zones).flatten(2).sum(2) / zones.flatten(2).sum(2).clamp(min=1)
    return share.masked_fill(~chosen, torch.inf).amin(1)


def methods(study: Study, seed: int) -> dict[str, Attributor]:
    """Those of the paper's Table 2, and controls."""
    multi = MultiLayerIBA(LAYERS, batch_size=8)
    for member in multi.members:
        member.statistics = study.statistics("detectors", seed, member.layer)
    return {
        "Grad-CAM": GradCAM(LAYER),
        "Integrated Gradients": IntegratedGradients(),
        "LRP": LRP(),
        "gradient": Gradient(),
        "IBA": study.iba("detectors", seed),
        "Inverse IBA": study.iba("detectors", seed, inverse=True),
        "Multi-layer IBA, gated": multi,
        "random map": RandomMap(),
        IN_LUNGS: RandomMap(),
    }
