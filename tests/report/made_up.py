"""Evaluations made up for the tests of the report: no model has ever given these numbers."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from lightning_chex.attribution import EveryPixel, PriorMap, RandomMap
from lightning_chex.data import DETECTORS, PATHOLOGIES, SyntheticCXR
from lightning_chex.evaluation import MEASURES, line_up
from lightning_chex.report import Curve, Estimate, ExampleRow

METHODS = ["IBA", "InverseIBA", "MultiLayerIBA", "GradCAM", "IntegratedGradients", "Gradient", "LRP"]
REGRESSION_METHODS = [
    *("RegressionIBA_MSE", "RegressionIBA_RM", "RegressionIBA_DV", "RegressionInverseIBA"),
    *METHODS[2:],
]
CONTROLS = ["EveryPixel", "RandomMap", "PriorMap"]
SKILL = {name: 1.0 - 0.12 * k for k, name in enumerate(METHODS)}
SKILL |= {name: 0.9 - 0.07 * k for k, name in enumerate(REGRESSION_METHODS)}
SKILL |= {"EveryPixel": 0.18, "RandomMap": 0.08, "PriorMap": 0.5, "LungField": 0.45}

# key: title, better, group, value of a map without and with skill
PLACE = {
    "iou/fixed_share": ("IoU, strongest 5 %", "higher", 0.03, 0.22),
    "iou/otsu": ("IoU, Otsu", "higher", 0.04, 0.2),
    "iou/tuned": ("IoU, tuned level", "higher", 0.05, 0.25),
    "iou/oracle": ("IoU, oracle", "higher", 0.1, 0.4),
    **{f"accuracy_iou/{t}": (f"T(IoU) at {t}", "higher", 0.1 - 0.1 * t, 0.9 - t) for t in (0.1, 0.25, 0.5, 0.75)},
    **{f"accuracy_iobb/{t}": (f"T(IoBB) at {t}", "higher", 0.1 - 0.1 * t, 1 - t) for t in (0.1, 0.25, 0.5, 0.75, 0.9)},
    "pointing_game": ("Pointing game", "higher", 0.08, 0.6),
    "effective_heat_ratio": ("Effective heat ratio", "higher", 0.05, 0.4),
    "mass_accuracy": ("Relevance mass accuracy", "higher", 0.08, 0.35),
    "rank_accuracy": ("Relevance rank accuracy", "higher", 0.08, 0.4),
}
USE = {
    "insertion_auc": ("Insertion AUC", "higher", 0.45, 0.78),
    "deletion_auc": ("Deletion AUC", "lower", 0.46, 0.2),
    "insertion_auc_half": ("Insertion AUC, half range", "higher", 0.3, 0.72),
    "deletion_auc_half": ("Deletion AUC, half range", "lower", 0.6, 0.31),
    "road": ("ROAD", "higher", 0.0, 0.4),
    "road_morf": ("ROAD, strongest first", "lower", 0.5, 0.3),
    "road_lerf": ("ROAD, weakest first", "higher", 0.5, 0.7),
    "sensitivity_n": ("Sensitivity-N", "higher", 0.0, 0.5),
    "randomization": ("Correlation after randomisation", "lower", 0.7, 0.05),
}
SEVERITY = {
    "severity_correlation": ("Correlation with zone scores", "higher", 0.0, 0.5),
    "zone_correlation": ("Correlation within an image", "higher", 0.0, 0.45),
}

OPTIMISED = {"convergence": "Change at the end", "unconverged": "Not converged"}


def made_up_results(kind: str = "classes", n: int = 240, methods: list[str] | None = None) -> dict[str, Any]:
    """Results as ``results.json`` holds them, of ``classes``, ``detectors`` or a ``regression``."""
    generator = np.random.default_rng(0)
    zones = kind != "classes"
    named = {"classes": PATHOLOGIES, "detectors": DETECTORS, "regression": ()}[kind]
    keys = {**(PLACE if kind != "regression" else {}), **USE, **(SEVERITY if zones else {})}
    chosen = methods if methods is not None else (REGRESSION_METHODS if kind == "regression" else METHODS)
    # as declared, so that the page shows each where it belongs, with words that no report of a real model has
    measures = {
        key: MEASURES[key].to_json()
        | {"title": title, "better": better, "explanation": f"Made up for a test: {title}."}
        for key, (title, better, _, _) in keys.items()
    }

    def estimates(name: str) -> dict[str, Any]:
        return {key: _estimate(generator, keys[key][2:], SKILL.get(name, 0.3), n, named) for key in keys}

    found = {
        "methods": {name: estimates(name) for name in chosen},
        "controls": {name: estimates(name) for name in [*CONTROLS, *(["LungField"] if zones else [])]},
    }
    measures |= {key: MEASURES[key].to_json() | {"title": title, "explanation": ""} for key, title in OPTIMISED.items()}
    for place, name in enumerate(name for name in chosen if "IBA" in name):
        median = {"value": 0.04 + 0.05 * place, "ci_low": None, "ci_high": None, "n": n, "patients": n // 2}
        found["methods"][name] |= {"convergence": median, "unconverged": {**median, "value": 0.2 * place}}
    return found | {
        "differences": made_up_differences(measures, found["methods"], found["controls"]),
        "task": "regression" if kind == "regression" else "classification",
        "class_names": list(named),
        "descriptions": descriptions(kind == "regression"),
        "regions": "zones" if zones else "boxes",
        "measures": measures,
        "left_out": {"RegressionIBA_MSE": "made up: explains a score, and the model gives classes"}
        if not zones
        else {},
        "protocol": {
            "data": {
                "fingerprint": "made-up-" + "0" * 32,
                "module": "MadeUpDataModule",
                "images": n,
                "targets": n + 40,
                "patients": n // 2,
                "tuning_images": n,
            },
            "split": "test: the half of the made-up images whose patients are not in the tuning half",
            "checkpoint": {"file": "made_up.ckpt", "sha256": "ab" * 32},
            "threshold_rule": "strongest 5 % of the pixels",
            "tuned_levels": {name: {each: 0.3 for each in named} for name in chosen},
            "statistics": {"features.denseblock3": {"images": 800, "from": "training split"}},
            "seeds": {"bootstrap": 0, "maps": 0},
            "settings": {"step": 25, "masks": 30, "sizes": [1, 10, 100]},
            "versions": {"lightning_chex": "0.0.0-made-up", "torch": None},
        },
    }


def descriptions(score: bool) -> dict[str, Any]:
    """Descriptions of the built-in methods and controls, as an evaluation writes them."""
    prior = PriorMap(torch.zeros(1, 1, 1))
    methods = {**line_up("layer", score), "EveryPixel": EveryPixel(), "RandomMap": RandomMap(), "PriorMap": prior}
    return {name: asdict(method.about()) for name, method in methods.items()}


def made_up_differences(measures, methods, controls) -> dict[str, Any]:
    """Clear of 0 where the intervals of two means do not overlap: real ones are narrower, which nothing here tells."""
    made = {}
    for key in (key for key, measure in measures.items() if measure["better"]):
        pairs = []
        for place, method in enumerate(methods):
            for other in [*list(methods)[place + 1 :], *controls]:
                own, its = methods[method].get(key), {**controls, **methods}[other].get(key)
                if own and its and own["value"] is not None and its["value"] is not None:
                    less = _less(own, its)
                    if "class_mean" in own and "class_mean" in its:
                        less["class_mean"] = _less(own["class_mean"], its["class_mean"])
                    pairs.append({"method": method, "other": other, **less})
        if pairs:
            made[key] = pairs
    return made


def _less(own, its) -> dict[str, Any]:
    ends = [own["ci_low"], own["ci_high"], its["ci_low"], its["ci_high"]]
    known = all(end is not None and math.isfinite(end) for end in ends)
    return {
        "value": own["value"] - its["value"],
        "ci_low": ends[0] - ends[3] if known else None,
        "ci_high": ends[1] - ends[2] if known else None,
        "n": min(own["n"], its["n"]),
        "patients": min(own["patients"], its["patients"]),
    }


def _estimate(generator, ends, skill, n, names) -> dict[str, Any]:
    def one(count: int) -> dict[str, Any]:
        value = ends[0] + (ends[1] - ends[0]) * skill + generator.normal(0, 0.006)
        half = 0.5 / math.sqrt(max(count, 1)) * (abs(ends[1] - ends[0]) + 0.05)
        interval = (None, None) if count < 2 else (value - half, value + half)
        return {"value": value, "ci_low": interval[0], "ci_high": interval[1], "n": count, "patients": count // 2}

    made = one(n)
    if names:
        made["class_mean"] = one(n)
        made["per_class"] = {name: one(max(1, n // len(names) - 3 * k)) for k, name in enumerate(names)}
    return made


def made_up_curves(results: dict[str, Any], steps: int = 41) -> list[Curve]:
    """A curve of every kind for every method and control."""
    made = []
    share = np.linspace(0, 1, steps)
    for name in [*results["methods"], *results["controls"]]:
        s = SKILL.get(name, 0.3)
        shapes = {
            "insertion": (share, 0.1 + 0.75 * share ** (1.2 - s)),
            "deletion": (share, 0.1 + 0.75 * (1 - share) ** (1 + 4 * s)),
            "sensitivity_n": (np.geomspace(1, 50000, steps), 0.1 + 0.6 * s * np.sin(np.pi * share**2)),
            "randomization": (np.linspace(0, 1, 5), 1 - s * np.linspace(0, 1, 5) ** 0.5),
            "road_morf": (share[1::4], 0.8 - 0.6 * s * share[1::4]),
            "road_lerf": (share[1::4], 0.8 - 0.3 * (1 - s) * share[1::4]),
        }
        if results["task"] == "classification":
            shapes["iou_at_level"] = (share, 0.07 + 0.5 * s * share * (1 - share) ** (1.5 - s))
        if results["regions"] == "zones":
            shapes["relevance_by_score"] = (np.arange(4), 0.2 + 0.2 * s * np.arange(4))
        for kind, (x, value) in shapes.items():
            band = 0.02 + 0.01 * s
            means = [Estimate(v, v - band, v + band, n=100, patients=50) for v in value.tolist()]
            made.append(Curve(name, kind, x.tolist(), means))
    return made


def made_up_examples(results: dict[str, Any], size: int = 224) -> list[ExampleRow]:
    """Three phantom images, with maps that were drawn rather than computed."""
    regression, zones = results["task"] == "regression", results["regions"] == "zones"
    data = SyntheticCXR(num_images=24, size=size, target="severity" if zones else "pathologies", seed=3)
    samples = [sample for sample in (data[k] for k in range(24)) if zones or len(sample["boxes"])][:3]
    rows = []
    for k, sample in enumerate(samples):
        generator = torch.Generator().manual_seed(k)
        names = [*results["methods"], *results["controls"]]
        # undo ImageNet's normalisation of the first channel
        image = (sample["image"][0] * 0.229 + 0.485).clamp(0, 1)
        boxes = sample["boxes"][:1] if not zones else None
        centre = boxes[0].reshape(2, 2).mean(0) if boxes is not None else torch.tensor([0.3 * size, 0.6 * size])
        maps = {name: _map(name, centre, size, generator, k) for name in names}
        rows.append(
            ExampleRow(
                rank=("best", "median", "worst")[k],
                ranked_by=names[0],
                image=image,
                target_name="severity"
                if regression
                else results["class_names"][int(sample["box_labels"][0]) if boxes is not None else k],
                prediction=11.4 if regression else 0.83 - 0.2 * k,
                truth=9.0 if regression else 1.0,
                maps=maps,
                iou={name: SKILL.get(name, 0.3) * (0.7 - 0.3 * k) for name in names},
                boxes=boxes,
                zones=_six(sample["lung_mask"]) if zones else None,
                scores=sample["zones"].tolist() if zones else None,
                measure="correlation" if regression else "IoU",
            )
        )
    return rows


def _six(lungs: torch.Tensor) -> torch.Tensor:
    """Each lung cut into three, from the top."""
    rows = torch.arange(lungs.shape[1])[:, None]
    zones = []
    for lung in lungs:
        inside = lung.any(1).nonzero()
        low, high = int(inside.min()), int(inside.max()) + 1
        edges = [low + (high - low) * k // 3 for k in range(4)]
        zones += [lung & (rows >= edges[k]) & (rows < edges[k + 1]) for k in range(3)]
    return torch.stack(zones)


def _map(name: str, centre: torch.Tensor, size: int, generator: torch.Generator, off: int) -> torch.Tensor:
    noise = torch.randn(size, size, generator=generator)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    shift = 0.25 * size * off * torch.rand(2, generator=generator)
    spot = torch.exp(-((x - centre[0] - shift[0]) ** 2 + (y - centre[1] - shift[1]) ** 2) / (0.12 * size) ** 2)
    if name == "EveryPixel":
        return torch.ones(size, size)
    if name == "RandomMap":
        return torch.rand(size, size, generator=generator)
    if name in ("Gradient", "IntegratedGradients"):
        return (spot + 0.1) * noise.abs() ** 2
    return spot + 0.6 * spot * noise if name == "LRP" else spot
