"""Beyond the paper: do the shares of the maps tell that a network has learnt a shortcut, while it trains?

A thing beside the patient is linked to a label of the phantom. Small networks are trained with the callback, as a user
trains them; what it logs after the third epoch is compared with the same figures of clean runs, in which the thing is
there at random. Each run also says how much its network relies on the thing: what laying it on an image does to the
logit.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from scipy.stats import binomtest
from torch.utils.data import Dataset

from benchmarks.claims.study import Claim, Study, Table, Verdict
from lightning_chex.attribution import IBA, GradCAM
from lightning_chex.callbacks import IBACallback
from lightning_chex.data import PATHOLOGIES, SyntheticCXR, SyntheticDataModule
from lightning_chex.files import write_whole
from lightning_chex.tasks import ClassificationTask

SIZE, EPOCHS, TRAINING, VALIDATION = 64, 3, 1000, 200
CONSPICUITY = 0.5
"""Of the findings: a network of these sizes reaches an AUROC near .8, as networks do on NIH ChestX-ray8."""

BACKBONE, LAYER = "resnet10t", "layer2"
CLASS = "Effusion"
PLACES = ("corners", "edge", "outside_lungs")
EXPECTED = {"marker": "corners", "tube": "corners"}
"""Where each thing lies for the most part."""

WATCHED = {"IBA": "iba", "Grad-CAM": "grad_cam", "AUROC": "auroc"}
STRENGTHS = (0.0, 0.5, 0.8, 1.0)
CLEAN = range(100, 119)
"""Seeds of the clean runs that set the limits: of 20 exchangeable runs one is the highest in 5 % of all cases."""

RUNS = range(8)
"""Seeds of the runs that are reported, at every strength."""

WANTED, ADMITTED = 0.95, 0.05


def claim(study: Study) -> Claim:
    """Alarms over strength, for each kind of thing, of IBA, Grad-CAM and AUROC alone."""
    kinds, clean, seeds, strengths = list(EXPECTED), CLEAN, RUNS, STRENGTHS
    if study.quick:
        kinds, clean, seeds, strengths = kinds[:1], CLEAN[:2], RUNS[:1], (0.0, 1.0)
    counted: list[dict[str, Any]] = []
    for kind in kinds:
        limits = [trained(study.work, kind, 0.0, seed) for seed in clean]
        for strength in strengths:
            runs = [trained(study.work, kind, strength, seed) for seed in seeds]
            counted.append(
                {
                    "kind": kind,
                    "strength": strength,
                    "runs": runs,
                    "clean": limits,
                    "alarms": judged(kind, runs, limits),
                }
            )
    asked = [own for own in counted if own["strength"] == 0.5]
    false = [own for own in counted if own["strength"] == 0.0]
    raised = _pooled(asked, "IBA, the linked class")
    wrong = _pooled(false, "IBA, the linked class")
    return Claim(
        "A shortcut raises an alarm",
        f"Within {EPOCHS} epochs the shares of IBA's maps raise an alarm in {WANTED:.0%} of the runs in which a thing "
        f"beside the patient is linked to a label with strength .5, and in at most {ADMITTED:.0%} of those without.",
        verdict(raised, wrong),
        f"It holds where the shares of runs are at least {WANTED:.0%} and at most {ADMITTED:.0%}; it does not hold "
        f"where the 95 % interval of one lies wholly beyond. An alarm of *the linked class*: the figure of {CLASS} in "
        f"the place of the thing is higher than in all {len(clean)} clean runs. An alarm of *any figure*: of the "
        "run and the clean ones, each figure in standard deviations of them all, the run has the highest. Either "
        f"comes in {1 / (len(clean) + 1):.0%} of clean runs by its construction.",
        f"At strength .5 {_shown(raised)} of runs have an alarm of IBA, at 0 {_shown(wrong)}; "
        + "; ".join(
            f"{own['kind']} at {own['strength']:g}: {_shown(own['alarms']['IBA, the linked class'])}"
            for own in counted
            if own["strength"] > 0.5
        )
        + ".",
        [
            Table(
                "Share of runs with an alarm (Wilson's 95 % interval), and reliance on the thing",
                list(_rows(counted)),
            ),
            Table("Alarms over reliance: runs of all strengths above 0", list(_by_reliance(counted))),
        ],
        [
            f"{BACKBONE}, {SIZE} px, {TRAINING} training images, findings of conspicuity {CONSPICUITY}, {VALIDATION} "
            f"validation images, all explained at {LAYER}: chosen so that some hundred trainings are affordable.",
            "A network that does not rely on a shortcut has no alarm to raise: the strength of the link is the data's, "
            "reliance is the network's. It is the mean change of the logit when the thing is laid on images of other "
            "patients, in standard deviations of the logit without it.",
            "AUROC is measured on validation images with the same shortcut: that is how one would see it in training.",
        ],
    )


def verdict(raised: tuple[int, int], wrong: tuple[int, int]) -> Verdict:
    """Judge alarms at strength .5 and false alarms, as (how many, of how many runs)."""
    if not raised[1] or not wrong[1]:
        return "undecided"
    if raised[0] >= WANTED * raised[1] and wrong[0] <= ADMITTED * wrong[1]:
        return "holds"
    missed = interval(raised)[1] < WANTED or interval(wrong)[0] > ADMITTED
    return "does not hold" if missed else "undecided"


def judged(kind: str, runs: Sequence[dict], clean: Sequence[dict]) -> dict[str, tuple[int, int]]:
    """How many runs have an alarm, under each rule."""
    found = {}
    for name, key in WATCHED.items():
        linked = f"{key}/{CLASS}" if key == "auroc" else f"{key}_{EXPECTED[kind]}/{CLASS}"
        rules = {"the linked class": [highest(run, clean, [linked]) for run in runs]}
        rules["any figure"] = [highest(run, clean, _figures(key)) for run in runs]
        found |= {f"{name}, {rule}": (sum(alarms), len(alarms)) for rule, alarms in rules.items()}
    return found


def highest(run: Mapping[str, float], clean: Sequence[Mapping[str, float]], figures: Sequence[str]) -> bool:
    """Whether a run stands out: its most unusual figure is more so than that of every clean run.

    Each figure is taken in standard deviations of the run and the clean ones together, so that under exchange of the
    runs each is the highest equally often. Figures that any of them lacks are left out.
    """
    pool = torch.tensor([[own.get(name, math.nan) for name in figures] for own in (run, *clean)], dtype=torch.float64)
    pool = pool[:, pool.isfinite().all(0)]
    if not pool.numel():
        return False
    unusual = ((pool - pool.mean(0)) / pool.std(0).clamp(min=1e-12)).max(1).values
    return bool(unusual[0] > unusual[1:].max())


def trained(work: Path, kind: str, strength: float, seed: int) -> dict[str, float]:
    """What the callback logged after the last epoch of one run, and ``reliance``; read where it was run before."""
    file = work / "shortcuts" / f"{kind}-{strength:g}-{seed}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(train(kind, strength, seed), indent=1))
    return json.loads(file.read_text())


def train(kind: str, strength: float, seed: int) -> dict[str, float]:
    """Train one network on a phantom population of its own, with the callback in its last epoch."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    pl.seed_everything(seed, verbose=False)
    data = Kept(
        TRAINING, VALIDATION, 1, SIZE, seed=seed, images_per_patient=1, conspicuity=CONSPICUITY, shortcut=strength,
        shortcut_kind=kind, shortcut_class=CLASS,
    )  # fmt: skip
    task = ClassificationTask(list(PATHOLOGIES), BACKBONE, lr=2e-3, schedule="one_cycle")
    explain = IBACallback(
        attributors={"iba": IBA(LAYER), "grad_cam": GradCAM(LAYER)}, num_images=-1, every_n_epochs=EPOCHS,
        save_pictures=False, line_up_statistics=False,
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[explain],
    )  # fmt: skip
    trainer.fit(task, data)
    logged = {key.removeprefix("val/"): float(value) for key, value in trainer.callback_metrics.items()}
    return {key: own for key, own in logged.items() if key in _kept_figures()} | {
        "reliance": reliance(task, kind, strength, seed)
    }


@torch.no_grad()
def reliance(task: ClassificationTask, kind: str, strength: float, seed: int, number: int = 100) -> float:
    """Mean change of the logit by the thing, in standard deviations of the logit without it, over unseen patients."""
    shown, hidden = (_Laid(number, SIZE, 1000 + seed, images_per_patient=1, conspicuity=CONSPICUITY, shortcut=strength,
                           shortcut_kind=kind, shortcut_class=CLASS) for _ in range(2))  # fmt: skip
    hidden.there = False
    logits = [
        task.model.eval()(torch.stack([own[i]["image"] for i in range(number)]))[:, PATHOLOGIES.index(CLASS)].double()
        for own in (shown, hidden)
    ]
    return float((logits[0] - logits[1]).mean() / logits[1].std())


class _Laid(SyntheticCXR):
    """Images that all have the thing, or none of them."""

    there = True

    def foreign(self, index: int) -> Any:
        thing = super().foreign(index)
        return None if thing is None else replace(thing, shown=self.there)


class Remembered(Dataset):
    """Samples that are drawn once."""

    def __init__(self, own: Any) -> None:
        self.own, self.labels = own, own.labels
        self.image_ids, self.patient_ids = own.image_ids, own.patient_ids
        self._drawn: dict[int, dict] = {}

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, index: int) -> dict:
        if index not in self._drawn:
            self._drawn[index] = self.own[index]
        return self._drawn[index]


class Kept(SyntheticDataModule):
    """The phantom, drawn once and kept in memory."""

    def build(self, split: Any, transform: Any) -> Any:
        return Remembered(super().build(split, transform))


def _figures(key: str) -> list[str]:
    if key == "auroc":
        return [f"auroc/{name}" for name in PATHOLOGIES]
    return [f"{key}_{place}/{name}" for place in PLACES for name in PATHOLOGIES]


def _kept_figures() -> set[str]:
    return {"auroc"} | {name for key in WATCHED.values() for name in _figures(key)}


def interval(counted: tuple[int, int]) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, given as (how many, of how many)."""
    found = binomtest(*counted).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _shown(counted: tuple[int, int]) -> str:
    if not counted[1]:
        return "none"
    low, high = interval(counted)
    return f"{counted[0] / counted[1]:.2f} ({low:.2f} to {high:.2f}, of {counted[1]})"


def _pooled(parts: Sequence[Mapping[str, Any]], rule: str) -> tuple[int, int]:
    pairs = [own["alarms"][rule] for own in parts]
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def _rows(counted: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for own in counted:
        relied = torch.tensor([run["reliance"] for run in own["runs"]])
        scored = torch.tensor([run[f"auroc/{CLASS}"] for run in own["runs"]])
        yield {
            "thing": own["kind"],
            "strength": f"{own['strength']:g}",
            **{rule: _shown(pair) for rule, pair in own["alarms"].items()},
            "reliance, mean (least to most)": f"{relied.mean():.2f} ({relied.min():.2f} to {relied.max():.2f})",
            f"AUROC of {CLASS}": f"{scored.mean():.3f}",
        }


def _by_reliance(counted: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    linked = [(own["kind"], run) for own in counted if own["strength"] > 0 for run in own["runs"]]
    clean = {own["kind"]: own["clean"] for own in counted}
    for low, high in ((-math.inf, 0.25), (0.25, 0.5), (0.5, 1.0), (1.0, math.inf)):
        inside: dict[str, list[int]] = {}
        for kind, run in linked:
            if low <= run["reliance"] < high:
                for rule, (alarm, _) in judged(kind, [run], clean[kind]).items():
                    inside.setdefault(rule, []).append(alarm)
        if inside:
            bounds = (
                f"below {high:g}"
                if low == -math.inf
                else f"{low:g} or more"
                if high == math.inf
                else f"{low:g} to {high:g}"
            )
            yield {"reliance": bounds, **{rule: _shown((sum(own), len(own))) for rule, own in inside.items()}}
