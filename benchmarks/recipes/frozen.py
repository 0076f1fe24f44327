"""Logistic regression on what a network that is not trained any more makes of the images."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from lightning_chex.data import NIHDataModule
from lightning_chex.tasks import ClassificationTask

STRENGTHS = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Of which cross-validation chooses C, the inverse of the regularisation."""

FOLDS = 5


@dataclass(frozen=True)
class Regression:
    """Predictions of a logistic regression for a class each.

    Attributes:
        predicted: of the official test images, (N, K).
        strength: C, the best mean AUROC in cross-validation by patient on the training images.
        validation: mean AUROC of that cross-validation.
        seconds: of CPU time for features and regression.
    """

    predicted: np.ndarray
    strength: float
    validation: float
    seconds: float


def features(task: ClassificationTask, data: NIHDataModule, part: str, file: Path) -> np.ndarray:
    """What the network has before its last layer, averaged over the image, (N, F); kept in ``file``."""
    if not file.exists():
        task.eval()
        with torch.no_grad():
            batches = DataLoader(data.parts()[part], batch_size=16, collate_fn=data.collate)
            seen = [task.model.forward_head(task.model.forward_features(b["image"]), pre_logits=True) for b in batches]
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, torch.cat(seen).numpy())
    return np.load(file)


def regression(task: ClassificationTask, data: NIHDataModule, folder: Path) -> Regression:
    """Fit to the training images alone, C chosen among their patients; predict the official test images."""
    start = time.process_time()
    train = data.parts()["train"]
    seen = {part: features(task, data, part, folder / f"{part}.npy") for part in ("train", "test", "tuning")}
    scaler = StandardScaler().fit(seen["train"])
    x = scaler.transform(seen["train"])
    labels = train.labels.numpy()
    folds = list(GroupKFold(FOLDS).split(x, groups=train.patient_ids))
    found = {}
    for strength in STRENGTHS:
        areas = [
            roc_auc_score(labels[other, k], held_out[:, k])
            for fitted, other in folds
            for held_out in [_fit(x[fitted], labels[fitted], x[other], strength)]
            for k in range(labels.shape[1])
            if 0 < labels[other, k].sum() < len(other)
        ]
        found[strength] = float(np.mean(areas))  # within folds: predictions of several differ by their prevalences too
    best = max(found, key=lambda strength: found[strength])
    test = scaler.transform(np.concatenate([seen["test"], seen["tuning"]]))
    return Regression(_fit(x, labels, test, best), best, found[best], time.process_time() - start)


def _fit(x: np.ndarray, labels: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    models = [LogisticRegression(C=strength, max_iter=200).fit(x, labels[:, k]) for k in range(labels.shape[1])]
    return np.stack([model.decision_function(other) for model in models], axis=1)
