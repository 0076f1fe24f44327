import numpy as np
import pytest
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import TinyData, tiny_trainer

from lightning_chex.tasks import RegressionTask

SMALL = "test_resnet"


@pytest.mark.parametrize("stage", ["val", "test"])
def test_error_and_correlation_against_numpy(tmp_path, stage):
    task, data = RegressionTask((0, 9), SMALL), TinyData(score=True)
    images = data.val if stage == "val" else data.test
    trainer = tiny_trainer(tmp_path)
    (logged,) = (trainer.validate if stage == "val" else trainer.test)(task, data, verbose=False)
    with torch.no_grad():
        scores = task.eval()(images.images)[:, 0].double().numpy()
    truth = images.labels.double().numpy()
    assert logged[f"{stage}/mae"] == pytest.approx(np.abs(scores - truth).mean(), rel=1e-5)
    assert logged[f"{stage}/loss"] == pytest.approx(np.square(scores - truth).mean(), rel=1e-5)
    assert logged[f"{stage}/pearson"] == pytest.approx(np.corrcoef(scores, truth)[0, 1], abs=1e-4)


def zone_data() -> TinyData:
    """Tiny images with six scores each, 0 to 3."""
    data = TinyData(score=True)
    data.score_names = tuple("ABCDEF")
    for images in (data.train, data.val, data.test):
        images.labels = torch.randint(0, 4, (len(images), 6), generator=torch.Generator().manual_seed(1)).float()
    return data


@pytest.mark.parametrize("stage", ["val", "test"])
def test_six_scores_against_numpy(tmp_path, stage):
    task, data = RegressionTask(score_names="ABCDEF", backbone=SMALL), zone_data()
    images = data.val if stage == "val" else data.test
    trainer = tiny_trainer(tmp_path)
    (logged,) = (trainer.validate if stage == "val" else trainer.test)(task, data, verbose=False)
    with torch.no_grad():
        scores = task.eval()(images.images).double().numpy()
    truth = images.labels.double().numpy()
    total, true_total = scores.sum(axis=1), truth.sum(axis=1)
    assert scores.shape == truth.shape == (len(images), 6)
    assert logged[f"{stage}/loss"] == pytest.approx(np.square(scores - truth).mean(), rel=1e-5)
    assert logged[f"{stage}/part_mae"] == pytest.approx(np.abs(scores - truth).mean(), rel=1e-5)
    assert logged[f"{stage}/mae"] == pytest.approx(np.abs(total - true_total).mean(), rel=1e-5)
    assert logged[f"{stage}/pearson"] == pytest.approx(np.corrcoef(total, true_total)[0, 1], abs=1e-4)


def test_six_scores_begin_at_the_middle_and_train(tmp_path):
    task = RegressionTask(score_names="ABCDEF", backbone=SMALL)
    assert task.model.get_classifier().bias.tolist() == [1.5] * 6
    before = task.model.get_classifier().weight.clone()
    tiny_trainer(tmp_path).fit(task, zone_data())
    assert not torch.equal(task.model.get_classifier().weight, before)


def test_other_scores_than_the_datas_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"scores \['severity'\] are not the data's \['A', 'B'"):
        tiny_trainer(tmp_path).fit(RegressionTask(backbone=SMALL), zone_data())
    with pytest.raises(ValueError, match="score_names is empty"):
        RegressionTask(score_names=(), backbone=SMALL)


def test_scores_begin_anew_at_every_validation(tmp_path):
    task, data, trainer = RegressionTask((0, 9), SMALL), TinyData(score=True), tiny_trainer(tmp_path)
    first, second = (trainer.validate(task, data, verbose=False)[0] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("score_range", [(0.0, 18.0), (-4.0, 1.0)])
def test_training_starts_from_the_middle_of_the_range(score_range):
    task = RegressionTask(score_range, SMALL).eval()
    assert task.model.get_classifier().bias.tolist() == [sum(score_range) / 2]
    assert task(torch.rand(4, 3, 32, 32)).mean().item() == pytest.approx(sum(score_range) / 2, abs=2)


def test_a_prediction_is_one_score_per_image():
    task = RegressionTask((0, 9), SMALL).eval()
    images = TinyData(score=True).test.images
    predicted = task.predict_step({"image": images, "image_id": list("abcdef")}, 0)
    assert torch.equal(predicted["prediction"], task.model(images)[:, 0])


def test_a_batch_explain_out_of_memory_keeps_its_shape():
    task = RegressionTask(backbone=SMALL).eval()
    assert task.score(task(torch.zeros(1, 3, 32, 32))).shape == (1,)


def test_data_of_classes_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"classes \['left', 'right'\], not a score: set data.target"):
        tiny_trainer(tmp_path).fit(RegressionTask(backbone=SMALL), TinyData())


@pytest.mark.parametrize("score_range", [(18.0, 0.0), (3.0, 3.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_range_that_does_not_rise_or_end_is_named(score_range):
    with pytest.raises(ValueError, match=r"score_range=\(.*\) must rise"):
        RegressionTask(score_range, SMALL)
