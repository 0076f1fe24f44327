"""Claim 6, continued: what spread tells, and whether maps move with the prediction."""

from itertools import product

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from benchmarks.claims.layers import seen
from benchmarks.claims.populations import single_findings
from benchmarks.claims.study import LAYER, RULE, Claim, Measured, Study, Table, marked, outputs, several
from benchmarks.pages import estimate
from lightning_chex.attribution import Attributor, GradCAM, Gradient
from lightning_chex.metrics import spearman

NOISE_SEEDS = 4

STRENGTHS = (0.25, 0.5, 1.0)
"""Of each perturbation; images have values with a standard deviation near 1."""

RIGHT = "pixels on the finding"
WRONG = "pixels beside it"


def claims(study: Study) -> list[Claim]:
    """Two statements, each with its own verdict."""
    return [uncertain(study), moving(study)]


def uncertain(study: Study) -> Claim:
    """Spread over noise seeds of the pixels marked rightly and wrongly."""
    sample = study.sample("uncertain", measure_spread)
    difference = sample.difference(WRONG, RIGHT)
    return Claim(
        "Spread tells where a map is wrong",
        "Where maps of several noise seeds differ, the map is more often wrong.",
        sample.decided(WRONG, RIGHT),
        f"Of the marked pixels those beside the finding have a larger relative spread over {NOISE_SEEDS} noise seeds "
        f"than those on it. {RULE}",
        f"Difference of the coefficients of variation: {estimate(difference, signed=True)}, by network "
        f"{several(sample.by_seed(WRONG, RIGHT), signed=True)}.",
        [
            Table(
                "Coefficient of variation of a pixel's bits over noise seeds, mean over the marked pixels",
                [
                    {"which": name, "variation": estimate(sample.mean(name)), "n": sample.mean(name).n}
                    for name in sample.values
                ],
            )
        ],
        [
            "Noise is one source of error; a map can be the same for every seed and wrong.",
            "A difference can be sure and too small to use: compare it with the variation itself.",
        ],
    )


def moving(study: Study) -> Claim:
    """Correlation over perturbations of how far the output and the map move."""
    sample = study.sample("moving", measure_moves)
    by_seed = sample.by_seed("IBA", "zero")
    return Claim(
        "Maps move with the prediction",
        "The more a perturbation of the image changes the output, the more it changes the map "
        "(prediction-saliency correlation).",
        sample.decided("IBA", "zero"),
        f"The rank correlation of both changes over {3 * len(STRENGTHS)} perturbations of an image exceeds 0. {RULE}",
        f"IBA {estimate(sample.mean('IBA'), signed=True)}, by network {several(by_seed, signed=True)}.",
        [
            Table(
                "Spearman correlation of the change of the logit with 1 - Spearman of the maps",
                [
                    {"method": name, "correlation": estimate(sample.mean(name), signed=True), "n": sample.mean(name).n}
                    for name in sample.values
                    if name != "zero"
                ],
            )
        ],
        ["Stronger perturbations change both more, whatever the method: compare the methods, not the figure with 0."],
    )


def measure_spread(study: Study, seed: int) -> Measured:
    """Variation over noise seeds of marked pixels on and beside the findings that one network recognises."""
    network = study.network("classifier", seed)
    cases = seen(network, single_findings(study.cases))
    truth = cases.regions.any(1)
    maps = torch.stack(
        [
            study.iba("classifier", seed, seed=own).attribute(network, cases.images, cases.target).double()
            for own in range(NOISE_SEEDS)
        ]
    )
    return cases.patients, spread(maps, truth, cases.area)


def spread(maps: Tensor, truth: Tensor, area: Tensor) -> dict[str, Tensor]:
    """Mean coefficient of variation over S maps (S, N, H, W) of the ``area`` (N,) strongest pixels of their mean.

    Returns:
        of those within ``truth``, bool (N, H, W), and of the others, (N,) each; NaN where there are none.
    """
    mean = maps.mean(0)
    variation = maps.std(0) / mean.clamp(min=1e-9)
    where = marked(mean, area)
    found = {}
    for name, own in ((RIGHT, where & truth), (WRONG, where & ~truth)):
        found[name] = torch.where(own, variation, torch.nan).flatten(1).nanmean(1)
    return found


def measure_moves(study: Study, seed: int) -> Measured:
    """Correlation over perturbations of the changes of the logit and of the maps of several methods."""
    network = study.network("classifier", seed)
    cases = seen(network, single_findings(study.cases))
    rows = torch.arange(len(cases))
    others = [perturbed(cases.images, kind, strength) for kind, strength in product(PERTURBATIONS, STRENGTHS)]
    before = outputs(network, cases.images)[rows, cases.target]
    moves = torch.stack([(outputs(network, own)[rows, cases.target] - before).abs().double() for own in others], 1)
    methods: dict[str, Attributor] = {
        "IBA": study.iba("classifier", seed),
        "Grad-CAM": GradCAM(LAYER),
        "gradient": Gradient(),
    }
    values = {"zero": torch.zeros(len(cases))}
    for name, method in methods.items():
        own = method.attribute(network, cases.images, cases.target).double()
        found = [1 - spearman(own, method.attribute(network, image, cases.target).double()) for image in others]
        moved = torch.stack(found, 1)
        known = moved.isfinite().all(1)  # a map that is the same everywhere orders nothing
        moved[~known] = moves[~known]
        values[name] = torch.where(known, spearman(moves[:, None], moved[:, None]), torch.nan)
    return cases.patients, values


PERTURBATIONS = ("noise", "blur", "contrast")


def perturbed(images: Tensor, kind: str, strength: float) -> Tensor:
    """Change images (N, 3, H, W): grey noise, a Gaussian blur, or less contrast about each image's mean."""
    if kind == "noise":
        drawn = torch.randn(images[:, :1].shape, generator=torch.Generator().manual_seed(0))
        return images + 0.5 * strength * drawn.expand_as(images)
    if kind == "blur":
        return gaussian_blur(images, [13, 13], [2 * strength, 2 * strength])
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 - 0.6 * strength)
