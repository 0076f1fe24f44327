"""Reliability: against torchmetrics' calibration error, and what the callback leaves behind."""

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from tiny import TinyData, TinyTask, tiny_trainer
from torchmetrics.functional.classification import binary_calibration_error

from lightning_chex.explanations import ReliabilityDiagram
from lightning_chex.report import reliability_diagram
from lightning_chex.report.reliability import BINS, reliability
from lightning_chex.tasks import ClassificationTask, RegressionTask


def test_distances_from_the_diagonal_make_the_calibration_error():
    rng = np.random.default_rng(0)
    probabilities = np.concatenate([rng.random(500), [0.0, 1.0, 0.5]])
    labels = (rng.random(503) < probabilities**2).astype(float)
    found = reliability(probabilities, labels)
    error = (found[:, 2] * abs(found[:, 0] - found[:, 1])).sum() / 503
    expected = binary_calibration_error(torch.tensor(probabilities), torch.tensor(labels).long(), n_bins=BINS)
    assert error == pytest.approx(float(expected), abs=1e-9) and found[:, 2].sum() == 503
    labels[10:20] = np.nan
    assert reliability(probabilities, labels)[:, 2].sum() == 493


def test_a_class_that_is_known_of_no_image_has_an_empty_diagram():
    drawn = reliability_diagram(np.full((3, 2), 0.5), np.array([[1, np.nan]] * 3), ["a", "b"], "title")
    assert [axis.get_title() for axis in drawn.axes] == ["a, ECE 0.500", "b, ECE nan"]


def test_a_file_each_validation_and_none_of_a_trial(tmp_path):
    task = ClassificationTask(["left", "right"], backbone="test_resnet")
    task.model = TinyTask().model
    logger = CSVLogger(tmp_path, name="own", version="run")
    tiny_trainer(tmp_path, ReliabilityDiagram(), max_epochs=2, logger=logger).fit(task, TinyData())
    drawn = sorted(tmp_path.rglob("epoch_*.png"))
    assert {path.name for path in drawn} == {"epoch_000.png", "epoch_001.png"} and Image.open(drawn[0]).width > 300
    before = set(tmp_path.rglob("*"))
    tiny_trainer(tmp_path, ReliabilityDiagram(), fast_dev_run=True).fit(task, TinyData())
    assert set(tmp_path.rglob("*")) == before


def test_a_model_of_scores_is_refused(tmp_path):
    with pytest.raises(Exception, match="RegressionTask has no class_names, which ReliabilityDiagram needs"):
        tiny_trainer(tmp_path, ReliabilityDiagram()).validate(
            RegressionTask(backbone="test_resnet"), TinyData(score=True)
        )
