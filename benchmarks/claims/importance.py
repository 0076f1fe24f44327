"""Claim 5: the maps mark what the output rests on (section 3, Fig. 2 and 3); how far the measures of it agree."""

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_average_precision

from benchmarks.claims.layers import compared, methods, seen
from benchmarks.claims.populations import Cases, severities, single_findings
from benchmarks.claims.study import LAYER, RULE, Claim, Measured, Study, Table, several
from benchmarks.pages import estimate
from lightning_chex.attribution import (
    LRP,
    Attributor,
    ExpectedGradients,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    IntegratedGradients,
    RandomMap,
    SmoothGrad,
)
from lightning_chex.metrics import insertion_deletion, mask_sizes, mass_accuracy, road, sensitivity_n, spearman

MEASURES = {"insertion": 1, "deletion": -1, "ROAD": 1, "IoU": 1, "AUPRC": 1, "pointing": 1, "mass": 1}
"""Whether more is better (1) or less (-1)."""

OBJECTIVES = ("deviation", "squared_error", "maximize_score")
PAPER = {
    "Grad-CAM": 0.077,
    "Integrated Gradients": 0.076,
    "LRP": 0.025,
    "gradient": 0.114,
    "IBA at denseblock2": 0.114,
    "Inverse IBA": 0.088,
    "Multi-layer IBA, gated": 0.189,
}
"""Mean IoU of Table 1; the paper's IBA and Inverse IBA are at denseblock3."""

IBA_ROW = f"IBA at {LAYER.split('.')[1]}"


def claim(study: Study) -> Claim:
    """Every method under every measure, its rank, and the rank correlation between the measures."""
    sample = study.sample("importance", measure)
    names = list(dict.fromkeys(key.split("|")[1] for key in sample.values))
    means = {m: torch.tensor([sample.mean(f"{m}|{name}").value for name in names]) for m in MEASURES}
    ranks = {m: (-sign * means[m]).argsort().argsort() + 1 for m, sign in MEASURES.items()}
    rows = [
        {"method": name}
        | {m: f"{float(means[m][i]):.3f} ({int(ranks[m][i])})" for m in MEASURES}
        | {"mean rank": f"{float(torch.stack([ranks[m][i].float() for m in MEASURES]).mean()):.1f}"}
        | {"IoU of Table 1": PAPER.get(name, "")}
        for i, name in enumerate(names)
    ]
    agreement = [
        {"measure": one}
        | {
            other: f"{float(spearman(ranks[one].double()[None, None], ranks[other].double()[None, None])[0]):+.2f}"
            for other in MEASURES
        }
        for one in MEASURES
    ]
    ours = f"deletion|{IBA_ROW}"
    rival = "deletion|Grad-CAM"
    difference = sample.difference(rival, ours)
    by_seed = sample.by_seed(rival, ours)
    insertion = sample.difference(f"insertion|{IBA_ROW}", "insertion|Grad-CAM")
    return Claim(
        "What the output rests on",
        "IBA marks more important regions than other methods: deleting them costs the output more (Fig. 2; "
        "Sensitivity-N in Fig. 3b).",
        sample.decided(rival, ours),
        f"The deletion curve of IBA lies below that of Grad-CAM at the same layer, the strongest rival of the paper's "
        f"figure. {RULE}",
        f"Deletion AUC, Grad-CAM less IBA: {estimate(difference, signed=True)}, by network "
        f"{several(by_seed, signed=True)}; insertion AUC, IBA less Grad-CAM: {estimate(insertion, signed=True)}.",
        [
            Table("Means and, in brackets, ranks (1 is best)", rows),
            Table("Rank correlation (Spearman) between the measures, over the methods", agreement),
            Table("Sensitivity-N of the regression objectives (Fig. 3b)", sensitivity(study)),
        ],
        ["Perturbed images are not of the distribution the networks know; where measures disagree, none is the truth."],
    )


def line_up(study: Study, seed: int) -> dict[str, Attributor]:
    """Every method of the package."""
    found = methods(study, seed)
    found |= {
        "Inverse IBA": study.iba("classifier", seed, inverse=True),
        "Grad-CAM": GradCAM(LAYER),
        "Grad-CAM++": GradCAMPlusPlus(LAYER),
        "gradient": Gradient(),
        "SmoothGrad": SmoothGrad(),
        "Integrated Gradients": IntegratedGradients(),
        "Expected Gradients": study.fitted(ExpectedGradients(), "classifier", seed),
        "LRP": LRP(),
    }
    found["random map"] = found.pop("random map", RandomMap())
    return found


def judged(network: nn.Module, maps: Tensor, cases: Cases, name: str) -> dict[str, Tensor]:
    """The measures of `MEASURES`."""

    def predict(images: Tensor) -> Tensor:
        return network(images.contiguous(memory_format=torch.channels_last)).sigmoid()

    curves = insertion_deletion(
        predict, cases.images, maps, target=cases.target, step=maps[0].numel() // 20, fraction=0.5
    )
    imputed = road(predict, cases.images, maps, target=cases.target)
    truth = cases.regions.any(1)
    places = compared(maps, truth, cases.area, name)
    precision = [
        binary_average_precision(one.flatten(), own.flatten().long()) for one, own in zip(maps, truth, strict=True)
    ]
    return {
        f"insertion|{name}": curves.insertion_auc,
        f"deletion|{name}": curves.deletion_auc,
        f"ROAD|{name}": imputed.difference,
        f"IoU|{name}": places[f"iou|{name}"],
        f"AUPRC|{name}": torch.stack(precision),
        f"pointing|{name}": places[f"pointing|{name}"],
        f"mass|{name}": mass_accuracy(maps.clamp(min=0), truth),
    }


def sensitivity(study: Study) -> list[dict[str, str | float]]:
    """Correlation of a map's sum over masked pixels with the fall of the score, by objective."""
    sample = study.sample("sensitivity", measure_sensitivity)
    return [{"method": name, "Sensitivity-N": estimate(sample.mean(name), signed=True)} for name in sample.values]


def measure(study: Study, seed: int) -> Measured:
    """Every method on the findings that one network recognises."""
    network = study.network("classifier", seed)
    cases = seen(network, single_findings(study.cases))
    values = {}
    for name, method in line_up(study, seed).items():
        values |= judged(network, method.attribute(network, cases.images, cases.target).float(), cases, name)
    return cases.patients, values


def measure_sensitivity(study: Study, seed: int) -> Measured:
    """Sensitivity-N of the regression objectives and controls, the mean over the sizes of the masks."""
    network = study.network("severity", seed)
    scored = severities(max(8, study.cases // 3))

    def predict(images: Tensor) -> Tensor:
        return network(images.contiguous(memory_format=torch.channels_last))[:, 0]

    values = {}
    known: dict[str, Attributor] = {own: study.iba("severity", seed, objective=own) for own in OBJECTIVES}
    for name, method in (known | {"gradient": Gradient(), "random map": RandomMap()}).items():
        target = scored.scores.sum(1) if method.needs_true_score else None
        maps = method.attribute(network, scored.images, target).float()
        sizes = mask_sizes(maps[0].numel(), 6)
        values[name] = sensitivity_n(predict, scored.images, maps, sizes, masks=12).nanmean(1)
    return scored.patients, values
