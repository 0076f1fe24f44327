"""Choose beta and steps: sweeps on phantom images that nothing is reported on.

    python -m benchmarks.beta --classifier A.ckpt B.ckpt --regressor C.ckpt --out benchmarks/results/beta

writes OUT.json, one entry a setting with its measures case by case, and OUT.md. Networks: DenseNet-121 trained on the
phantom, explained at 224 px. ``--parts`` runs some of the sweeps; those of an existing OUT.json it keeps.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch
from torch import nn

from benchmarks import origin
from benchmarks.beta import measures, sweep, tables
from benchmarks.beta.cases import (
    Cases,
    class_cases,
    classifier,
    regressor,
    score_cases,
    training_batches,
    two_cue_cases,
)
from benchmarks.beta.convergence import convergence
from benchmarks.beta.sweep import LAYER, METHODS
from lightning_chex.attribution import IBA, FeatureStatistics, MultiLayerIBA

CLASS_PARTS = ("classes", "cues", "layers", "steps")
PLAN = [("default", IBA().settings.steps), ("authors'", 10)]
SCORE_PARTS = ("scores", "steps")
PARTS = tuple(dict.fromkeys(CLASS_PARTS + SCORE_PARTS))


class Study:
    """One network, and the statistics of its layers on its training images."""

    def __init__(self, path: Path, options: argparse.Namespace, scores: bool) -> None:
        self.path = path
        self.options = options
        self.scores = scores
        self.model: nn.Module = regressor(path) if scores else classifier(path)
        fitted = MultiLayerIBA().fit(self.model, training_batches("severity" if scores else "pathologies"))
        self.statistics: dict[str, FeatureStatistics] = {one.layer: one.statistics for one in fitted.members}

    def rows(self, part: str) -> list[sweep.Row]:
        model = self.model
        options = self.options
        last = self.statistics[LAYER]
        plan = options.plan
        curves = options.curves
        if part == "classes":
            cases = self.found(class_cases(model, options.cases))
            found = sweep.classes(model, last, cases, measures.of_findings, options.betas, plan, curves)
        elif part == "cues":
            cases = self.found(two_cue_cases(model, options.cue_cases))
            found = sweep.classes(model, last, cases, measures.of_cues, options.betas, plan, 0)
        elif part == "layers":
            cases = self.found(class_cases(model, options.cases).first(options.layer_cases))
            found = sweep.layers(model, self.statistics, cases, options.layer_betas, plan)
        elif part == "scores":
            cases = score_cases(options.cases)
            found = sweep.scores(model, last, cases, options.score_betas, plan, curves)
        else:
            return self.course_rows()
        return [{"network": self.path.stem, **row} for row in found]

    def course_rows(self) -> list[sweep.Row]:
        options = self.options
        rows = []
        if self.scores:
            cases = score_cases(options.step_cases)
            pairs = [("IBA", {"objective": "deviation", "beta": beta}) for beta in options.score_step_betas]
        else:
            cases = class_cases(self.model, options.cases).first(options.step_cases)
            pairs = [
                (name, {"objective": "binary_cross_entropy", "beta": beta})
                for beta in options.step_betas
                for name in METHODS
            ]
        for optimizer in dict.fromkeys(name for name, _ in options.plan):
            for method, setting in pairs:
                statistics = self.statistics[LAYER]
                rows += convergence(
                    method, statistics, self.model, cases, options.all_steps, optimizer=optimizer, **setting
                )
        return [{"network": self.path.stem, **row} for row in rows]

    def found(self, cases: Cases) -> Cases:
        print(f"{self.path.stem}: {len(cases)} cases of {len(set(cases.patients))} patients", flush=True)
        return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classifier", type=Path, nargs="*", default=[])
    parser.add_argument("--regressor", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md are written")
    parser.add_argument("--join", type=Path, nargs="*", default=[], help="take over the results in these JSON files")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--plan", type=plan_of, nargs="+", default=PLAN, help="optimiser and steps: default:15")
    parser.add_argument("--all_steps", type=int, nargs="+", default=[10, 15, 20, 30, 50, 200], help="of the part steps")
    parser.add_argument("--betas", type=float, nargs="+", default=[3, 10, 30, 100, 300])
    parser.add_argument("--layer_betas", type=float, nargs="+", default=[3, 10, 30, 100])
    parser.add_argument("--score_betas", type=float, nargs="+", default=[3, 10, 30, 100, 300, 1000])
    parser.add_argument("--step_betas", type=float, nargs="+", default=[10, 30])
    parser.add_argument("--score_step_betas", type=float, nargs="+", default=[30])
    parser.add_argument("--cases", type=int, default=32)
    parser.add_argument("--cue_cases", type=int, default=36)
    parser.add_argument("--layer_cases", type=int, default=12)
    parser.add_argument("--step_cases", type=int, default=8)
    parser.add_argument("--curves", type=int, default=16, help="cases with insertion and deletion")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    file = options.out.with_suffix(".json")
    kept = json.loads(file.read_text()) if file.exists() else {"parts": {}, "commands": []}
    for other in options.join:
        joined = json.loads(other.read_text())
        kept["commands"] += joined["commands"]
        for part, rows in joined["parts"].items():
            kept["parts"].setdefault(part, []).extend(rows)
    kept["commands"].append(f"`{origin.command('benchmarks.beta')}`, commit {origin.commit()}")
    kept["default"] = {name: getattr(IBA(), name) for name in sweep.OPTIMIZERS["authors'"]}
    studies = [Study(path, options, False) for path in options.classifier]
    studies += [Study(path, options, True) for path in options.regressor]
    for study in studies:
        for part in options.parts:
            if part not in (SCORE_PARTS if study.scores else CLASS_PARTS):
                continue
            others = [row for row in kept["parts"].get(part, []) if row["network"] != study.path.stem]
            kept["parts"][part] = others + study.rows(part)
            file.write_text(json.dumps(kept))
    write(options.out.with_suffix(".md"), kept)


def plan_of(text: str) -> tuple[str, int]:
    """An optimiser of `sweep.OPTIMIZERS` and its steps."""
    name, _, steps = text.partition(":")
    return name, int(steps)


def write(file: Path, kept: dict) -> None:
    ours = ", ".join(f"{name} {value}" for name, value in kept["default"].items())
    head = ["# Beta and steps", "", *(f"- {command}" for command in kept["commands"]), ""]
    head += [f"The optimiser 'default': {ours}. Bits and map changes are medians over cases, the rest means.", ""]
    file.write_text("\n".join([*head, tables.markdown(kept["parts"])]).rstrip() + "\n")


if __name__ == "__main__":
    main()
