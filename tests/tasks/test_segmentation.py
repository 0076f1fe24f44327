"""The lung network: what it learns from, what is measured, and a run from the command line."""

import csv
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import segmentation_models_pytorch
import torch
from commands import CONFIGS, TINY
from fakes import write_lungs
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import TinyData, tiny_trainer

from lightning_chex.cli.main import main
from lightning_chex.data import SyntheticDataModule
from lightning_chex.tasks import LungDice, SegmentationTask, create_unet


def masks(seed: int, count: int = 5) -> torch.Tensor:
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed)) > 0.4


def dice_by_hand(predicted: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())


def test_dice_is_the_mean_over_images_and_batches_of_any_size():
    predicted, truth = masks(0), masks(1)
    metric = LungDice()
    metric.update(predicted[:2], truth[:2])
    metric.update(predicted[2:], truth[2:])
    by_hand = [[dice_by_hand(predicted[i, lung].numpy(), truth[i, lung].numpy()) for lung in (0, 1)] for i in range(5)]
    right, left = np.mean(by_hand, axis=0)
    out = metric.compute()
    assert out["dice/right_lung"] == pytest.approx(right) and out["dice/left_lung"] == pytest.approx(left)
    assert out["dice"] == pytest.approx((right + left) / 2)


def test_lungs_nobody_outlined_are_not_scored_and_lungs_not_found_score_zero():
    predicted, truth = masks(0, 3), masks(1, 3)
    truth[0, 1] = False
    predicted[1, 0] = False
    metric = LungDice()
    metric.update(predicted, truth)
    out = metric.compute()
    left = [dice_by_hand(predicted[i, 1].numpy(), truth[i, 1].numpy()) for i in (1, 2)]
    right = [dice_by_hand(predicted[i, 0].numpy(), truth[i, 0].numpy()) for i in (0, 1, 2)]
    assert right[1] == 0
    assert out["dice/left_lung"] == pytest.approx(np.mean(left))
    assert out["dice/right_lung"] == pytest.approx(np.mean(right))
    nothing = LungDice()
    nothing.update(predicted, torch.zeros_like(truth))
    assert all(math.isnan(value) for value in nothing.compute().values())


def test_the_loss_is_cross_entropy_plus_dice_over_outlined_lungs():
    task = SegmentationTask()
    logits, truth = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(2)), masks(1, 3)
    truth[0, 1] = False
    entropies, dices = [], []
    for image, lung in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]:
        t = truth[image, lung].numpy().astype(float)
        p = 1 / (1 + np.exp(-logits[image, lung].numpy().astype(float)))
        entropies.append(-(t * np.log(p) + (1 - t) * np.log(1 - p)).mean())
        dices.append(1 - 2 * (p * t).sum() / (p.sum() + t.sum()))
    assert task.loss(logits, truth).item() == pytest.approx(np.mean(entropies) + np.mean(dices), rel=1e-5)


def test_an_image_without_outlines_teaches_nothing():
    logits = torch.randn(2, 2, 8, 8, requires_grad=True)
    loss = SegmentationTask().loss(logits, torch.zeros(2, 2, 8, 8, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def phantom(size: int = 32) -> SyntheticDataModule:
    return SyntheticDataModule(num_train=8, num_val=4, num_test=4, size=size, batch_size=4)


def test_training_on_the_phantom_finds_its_lungs_and_checkpoints_hold_plain_values(tmp_path):
    pl.seed_everything(0)
    task, data = SegmentationTask(lr=3e-3), phantom()
    trainer = tiny_trainer(tmp_path, max_epochs=12)
    trainer.fit(task, datamodule=data)
    scores = trainer.callback_metrics
    assert scores["val/dice"] > 0.6
    assert scores["val/dice"] == pytest.approx((scores["val/dice/right_lung"] + scores["val/dice/left_lung"]) / 2)
    trainer.save_checkpoint(tmp_path / "lungs.ckpt")
    torch.load(tmp_path / "lungs.ckpt", weights_only=True)
    again = SegmentationTask.load_from_checkpoint(tmp_path / "lungs.ckpt").eval()
    image = data.dataset("test")[0]["image"][None]
    assert again(image).equal(task.eval()(image)) and again(image).shape == (1, 2, 32, 32)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: phantom(size=40), "data.size=40, but a U-Net.* multiples of 32: give 32 or 64"),
        (lambda: WithoutMasks(), "samples of WithoutMasks have no lung_mask: use LungDataModule"),
        (lambda: SkipsTheFirst(), "samples of SkipsTheFirst have no lung_mask"),
    ],
)
def test_data_it_cannot_learn_from_is_refused_at_set_up(tmp_path, data, words):
    with pytest.raises(MisconfigurationException, match=words):
        tiny_trainer(tmp_path).fit(SegmentationTask(), datamodule=data())


class WithoutMasks(TinyData):
    def dataset(self, split: str):
        return self.val


class SkipsTheFirst(WithoutMasks):
    """Its first image is unreadable, and such are skipped."""

    def readable(self, dataset, name):
        return [None, dataset[1]]


def test_impossible_settings_are_named_at_construction(monkeypatch):
    with pytest.raises(ValueError, match="encoder='resnet19' is unknown.*nearest names: .*resnet18"):
        SegmentationTask(encoder="resnet19")
    with pytest.raises(ValueError, match="lr=0 must"):
        SegmentationTask(lr=0)

    def offline(*arguments, **options):
        assert options["encoder_weights"] == "imagenet"
        raise ConnectionError("cannot reach the hub\n(a long story)")

    monkeypatch.setattr(segmentation_models_pytorch, "UnetPlusPlus", offline)
    with pytest.raises(RuntimeError, match="'resnet18'.*cannot reach the hub.*set pretrained: false") as caught:
        create_unet("resnet18", 2, pretrained=True)
    assert "long story" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_the_configuration_trains_and_predicts(place, capsys):
    root, truth = write_lungs(place / "lungs", "cohen")
    config = str(CONFIGS / "lung_segmentation.yaml")
    main(["fit", "--config", config, "--data.root", str(root), *TINY, "--trainer.default_root_dir", "out"])
    assert "Dice, mean of both lungs" in capsys.readouterr().out
    (sheet,) = (place / "work" / "out").rglob("lungs/epoch_000.png")
    assert Image.open(sheet).size[0] > 500
    (best,) = (place / "work" / "out").rglob("best.ckpt")
    torch.load(best, weights_only=True)
    options = ["--ckpt_path", str(best), "--trainer.default_root_dir", "out"]
    main(["predict", "--config", config, "--data.root", str(root), *TINY, *options])
    (table,) = (place / "work" / "out").rglob("predictions.csv")
    rows = list(csv.DictReader(table.open()))
    assert rows and {row["image_id"] for row in rows} < set(truth)
    assert all(0 <= float(row[f"{side}_lung_share"]) <= 1 for row in rows for side in ("right", "left"))
