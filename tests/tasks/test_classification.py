"""Scores and losses of the classification task against sums written out by hand."""

import math

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import CLASS_NAMES, TinyData, tiny_trainer

from lightning_chex.tasks import ClassificationTask, MultilabelScores

SMALL = "test_resnet"  # timm's smallest


def auroc_by_hand(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of the pairs of a positive and a negative that are in order, ties counting half."""
    pairs = [(p, n) for p in scores[labels == 1] for n in scores[labels == 0]]
    return sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)


def average_precision_by_hand(scores: np.ndarray, labels: np.ndarray) -> float:
    """Sum over thresholds of precision times the recall gained."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = labels[scores >= threshold]
        gained = found.sum() / labels.sum()
        total += (gained - recall) * found.mean()
        recall = gained
    return total


@pytest.mark.parametrize("decimals", [6, 0])  # without and with ties
def test_auroc_and_average_precision_by_hand(decimals):
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 4)) < [0.5, 0.2, 0.1, 0.4]).astype(int)
    logits = np.round(2 * rng.standard_normal((60, 4)) + labels, decimals).astype(np.float32)
    scores = MultilabelScores(list("abcd"))
    for part in np.split(np.arange(60), 5):
        scores.update(torch.from_numpy(logits[part]), torch.from_numpy(labels[part]))
    result = scores.compute()
    for key, by_hand in (("auroc", auroc_by_hand), ("ap", average_precision_by_hand)):
        expected = [by_hand(logits[:, c], labels[:, c]) for c in range(4)]
        assert [result[f"{key}/{name}"].item() for name in "abcd"] == pytest.approx(expected, abs=1e-6)
        assert result[key].item() == pytest.approx(np.mean(expected), abs=1e-6)
    assert result["classes_scored"] == 4


def test_calibration_is_the_distance_of_probability_and_frequency_over_bins():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 2)).astype(np.float32) * 2
    labels = (rng.random((300, 2)) < [0.2, 0.6]).astype(np.float32)
    scores = MultilabelScores(["a", "b"])
    scores.update(torch.from_numpy(logits), torch.from_numpy(labels))
    found = scores.compute()
    for c, name in enumerate("ab"):
        error, probabilities = 0.0, 1 / (1 + np.exp(-logits[:, c].astype(float)))
        for low in range(15):
            held = (low / 15 < probabilities) & (probabilities <= (low + 1) / 15)
            if held.any():
                error += held.mean() * abs(probabilities[held].mean() - labels[held, c].mean())
        assert found[f"ece/{name}"].item() == pytest.approx(error, abs=1e-6)
    assert found["ece"].item() == pytest.approx((found["ece/a"] + found["ece/b"]).item() / 2)


def test_confident_logits_stay_apart():
    scores = MultilabelScores(["a"])
    scores.update(torch.tensor([[20.0], [21.0], [22.0], [-30.0]]), torch.tensor([[0], [1], [1], [0]]))
    assert scores.compute()["auroc"] == 1  # in float32 the first three have one probability


def test_a_class_without_positives_or_negatives_is_left_out_and_counted():
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    labels = (torch.arange(20)[:, None] % torch.tensor([2, 3, 1, 1]) == 0).long()
    labels[:, 3] = 0
    scores = MultilabelScores(["two", "three", "always", "never"])
    scores.update(logits, labels)
    result = scores.compute()
    assert result["classes_scored"] == 2 and {key.split("/")[1] for key in result if "/" in key} == {"two", "three"}
    assert result["auroc"].item() == pytest.approx((result["auroc/two"] + result["auroc/three"]).item() / 2)
    alone = MultilabelScores(["two"])
    alone.update(logits[:, :1], labels[:, :1])
    assert alone.compute()["ap/two"] == result["ap/two"]  # one class to score is enough


def test_no_class_to_score_gives_nan():
    scores = MultilabelScores(["a"])
    scores.update(torch.randn(5, 1), torch.zeros(5, 1))
    result = scores.compute()
    assert math.isnan(result["auroc"]) and math.isnan(result["ap"]) and result["classes_scored"] == 0
    assert not [key for key in result if "/" in key]


def test_loss_is_the_mean_of_binary_cross_entropies():
    task = ClassificationTask(["a", "b"], SMALL)
    logits, labels = torch.tensor([[0.3, -2.0], [1.5, 40.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    weights = [1.0, 1.0]
    for _ in range(2):
        total = 0.0
        for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
            for logit, y, weight in zip(row, truth, weights, strict=True):
                probability = 1 / (1 + math.exp(-logit))
                total -= weight * math.log(probability) if y else math.log(1 - probability)
        assert task.loss(logits, labels).item() == pytest.approx(total / 6, rel=1e-5)
        weights = [3.0, 0.25]
        task.pos_weight.copy_(torch.tensor(weights))


class WeightedData(TinyData):
    pos_weight = torch.tensor([2.0, 5.0])


@pytest.mark.parametrize(("loss", "expected"), [("weighted_bce", [2.0, 5.0]), ("bce", [1.0, 1.0])])
def test_pos_weight_comes_from_the_data_and_travels_with_the_checkpoint(tmp_path, loss, expected):
    task = ClassificationTask(CLASS_NAMES, SMALL, loss=loss)
    trainer = tiny_trainer(tmp_path, limit_train_batches=1, limit_val_batches=1)
    trainer.fit(task, WeightedData())
    assert task.pos_weight.tolist() == expected
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    restored = ClassificationTask.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert restored.pos_weight.tolist() == expected and restored.weighted == (loss == "weighted_bce")


def test_weighted_bce_without_class_weights_says_what_to_do(tmp_path):
    with pytest.raises(MisconfigurationException, match="needs a data module with a pos_weight.*use loss: bce"):
        tiny_trainer(tmp_path).fit(ClassificationTask(CLASS_NAMES, SMALL, loss="weighted_bce"), TinyData())


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([math.inf, 1.0], "pos_weight is inf for left; weights must be finite"),
        ([1.0, math.nan], "pos_weight is nan for right"),
        ([-1.0, 0.0], "pos_weight is -1.0 for left, 0.0 for right"),
        ([1.0, 1.0, 1.0], r"pos_weight has shape \(3,\); 2 classes need \(2,\)"),
    ],
)
def test_impossible_class_weights_are_named(tmp_path, weights, words):
    data = TinyData()
    data.pos_weight = torch.tensor(weights)
    with pytest.raises(MisconfigurationException, match=words):
        tiny_trainer(tmp_path).fit(ClassificationTask(CLASS_NAMES, SMALL, loss="weighted_bce"), data)


@pytest.mark.parametrize("run", ["fit", "validate", "test"])
def test_other_classes_than_the_datas_are_refused(tmp_path, run):
    task = ClassificationTask(["right", "left"], SMALL)
    with pytest.raises(MisconfigurationException, match=r"classes \['right', 'left'\] are not the data's \['left', 'r"):
        getattr(tiny_trainer(tmp_path), run)(task, datamodule=TinyData())


def test_validation_and_test_log_what_all_their_images_give(tmp_path):
    task, data = ClassificationTask(CLASS_NAMES, SMALL), TinyData()
    trainer = tiny_trainer(tmp_path)
    for stage, images in (("val", data.val), ("test", data.test)):
        (logged,) = (trainer.validate if stage == "val" else trainer.test)(task, data, verbose=False)
        with torch.no_grad():
            logits = task.eval()(images.images)
        expected = [auroc_by_hand(logits[:, c].numpy(), images.labels[:, c].numpy()) for c in range(2)]
        assert [logged[f"{stage}/auroc/{name}"] for name in CLASS_NAMES] == pytest.approx(expected, abs=1e-6)
        assert logged[f"{stage}/auroc"] == pytest.approx(np.mean(expected), abs=1e-6)
        # the last batch is smaller: a mean of batch means would be another number
        assert logged[f"{stage}/loss"] == pytest.approx(task.loss(logits, images.labels).item(), abs=1e-6)
        assert logged[f"{stage}/classes_scored"] == 2


def test_scores_begin_anew_at_every_validation(tmp_path):
    task, data, trainer = ClassificationTask(CLASS_NAMES, SMALL), TinyData(), tiny_trainer(tmp_path)
    first, second = (trainer.validate(task, data, verbose=False)[0] for _ in range(2))
    assert first == second and not task.val_scores.logits


def test_predictions_are_probabilities():
    task = ClassificationTask(CLASS_NAMES, SMALL).eval()
    images = TinyData().test.images
    predicted = task.predict_step({"image": images, "image_id": list("abcdef")}, 0)
    assert predicted["image_id"] == list("abcdef")
    torch.testing.assert_close(predicted["prediction"], 1 / (1 + torch.exp(-task.model(images))))


def test_densenet_has_an_output_per_class():
    task = ClassificationTask(["a", "b", "c"]).eval()
    assert task(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert task.get_submodule("model.features.denseblock3")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_names": []}, "class_names is empty.*RegressionTask"),
        ({"loss": "focal"}, "loss='focal' is unknown; choose bce or weighted_bce"),
    ],
)
def test_impossible_settings_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        ClassificationTask(**{"class_names": ["a"], "backbone": SMALL, **options})


@pytest.mark.parametrize("loss", ["bce", "weighted_bce"])
def test_labels_that_are_not_known_give_neither_loss_nor_gradient(loss):
    task = ClassificationTask(["a", "b", "c"], SMALL, loss=loss)
    task.pos_weight.copy_(torch.tensor([3.0, 0.5, 2.0]) if loss == "weighted_bce" else torch.ones(3))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, requires_grad=True)
    labels = (torch.rand(6, 3, generator=generator) < 0.5).float()
    gone = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]).bool()
    task.loss(logits, labels.masked_fill(gone, torch.nan)).backward()

    # the reference: the sum over the entries that are left, one by one, divided by their number
    left = [(i, c) for i in range(6) for c in range(3) if not gone[i, c]]
    reference = logits.detach().clone().requires_grad_()
    total = torch.zeros(())
    for i, c in left:
        p, weight = reference[i, c].sigmoid(), task.pos_weight[c]
        total = total - (weight * p.log() if labels[i, c] else (1 - p).log())
    (total / len(left)).backward()
    assert torch.allclose(logits.grad, reference.grad, atol=1e-7) and (logits.grad[gone] == 0).all()
    nothing = task.loss(logits, torch.full((6, 3), torch.nan))
    assert nothing == 0 and (torch.autograd.grad(nothing, logits)[0] == 0).all()


def test_gradients_of_weights_are_those_of_the_known_images_alone():
    torch.manual_seed(0)
    task = ClassificationTask(["a", "b"], SMALL).eval()  # in evaluation mode no image depends on its batch mates
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]])
    masked = labels.clone()
    masked[2:] = torch.nan
    found = []
    for batch, truth in ((images, masked), (images[:2], labels[:2])):
        task.zero_grad()
        task.loss(task(batch), truth).backward()
        found.append(torch.cat([own.grad.flatten() for own in task.model.parameters()]))
    assert torch.allclose(*found, atol=1e-6) and found[0].abs().max() > 1e-3


def test_scores_of_a_class_are_of_the_images_it_is_known_of():
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(40, 2, generator=generator), (torch.rand(40, 2, generator=generator) < 0.4).float()
    gone = torch.rand(40, generator=generator) < 0.5
    masked = labels.clone()
    masked[gone, 0] = torch.nan
    scores = MultilabelScores(["a", "b"])
    scores.update(logits, masked)
    result = scores.compute()
    for c, kept in enumerate((~gone, torch.ones(40, dtype=torch.bool))):
        one = logits[kept, c].numpy(), labels[kept, c].numpy()
        assert result[f"auroc/{'ab'[c]}"].item() == pytest.approx(auroc_by_hand(*one), abs=1e-6)
        assert result[f"ap/{'ab'[c]}"].item() == pytest.approx(average_precision_by_hand(*one), abs=1e-6)
    assert result["classes_scored"] == 2
