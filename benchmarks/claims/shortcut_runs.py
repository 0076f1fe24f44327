"""Trainings in which a thing beside the patient is linked to a label, and what the callback logs of them."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from lightning_chex.attribution import IBA, GradCAM
from lightning_chex.data import PATHOLOGIES, SyntheticCXR, SyntheticDataModule
from lightning_chex.explanations import IBACallback
from lightning_chex.files import write_whole
from lightning_chex.tasks import ClassificationTask

SIZE = 64
EPOCHS = 3
TRAINING = 1000
VALIDATION = 200
CONSPICUITY = 0.5
"""Of the findings: a network of these sizes reaches an AUROC near .8, as networks do on NIH ChestX-ray8."""

BACKBONE = "resnet10t"
LAYER = "layer2"
CLASS = "Effusion"
PLACES = ("corners", "edge", "outside_lungs")
EXPECTED = {"marker": "corners", "tube": "corners"}
"""Where each thing lies for the most part."""

WATCHED = {"IBA": "iba", "Grad-CAM": "grad_cam", "AUROC": "auroc"}


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
        TRAINING,
        VALIDATION,
        1,
        SIZE,
        seed=seed,
        images_per_patient=1,
        conspicuity=CONSPICUITY,
        shortcut=strength,
        shortcut_kind=kind,
        shortcut_class=CLASS,
    )
    task = ClassificationTask(list(PATHOLOGIES), BACKBONE, lr=2e-3, schedule="one_cycle")
    explain = IBACallback(
        attributors={"iba": IBA(LAYER), "grad_cam": GradCAM(LAYER)},
        num_images=-1,
        every_n_epochs=EPOCHS,
        save_pictures=False,
        line_up_statistics=False,
    )
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[explain],
    )
    trainer.fit(task, data)
    logged = {key.removeprefix("val/"): float(value) for key, value in trainer.callback_metrics.items()}
    return {key: own for key, own in logged.items() if key in _kept()} | {
        "reliance": reliance(task, kind, strength, seed)
    }


@torch.no_grad()
def reliance(task: ClassificationTask, kind: str, strength: float, seed: int, number: int = 100) -> float:
    """Mean change of the logit by the thing, in standard deviations of the logit without it, over unseen patients."""
    shown, hidden = (
        _Laid(
            number,
            SIZE,
            1000 + seed,
            images_per_patient=1,
            conspicuity=CONSPICUITY,
            shortcut=strength,
            shortcut_kind=kind,
            shortcut_class=CLASS,
        )
        for _ in range(2)
    )
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
        self.own = own
        self.labels = own.labels
        self.image_ids = own.image_ids
        self.patient_ids = own.patient_ids
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


def figures_of(key: str) -> list[str]:
    if key == "auroc":
        return [f"auroc/{name}" for name in PATHOLOGIES]
    return [f"{key}_{place}/{name}" for place in PLACES for name in PATHOLOGIES]


def _kept() -> set[str]:
    return {"auroc"} | {name for key in WATCHED.values() for name in figures_of(key)}
