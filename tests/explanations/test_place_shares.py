import pytest
import torch
from commands import TINY
from tiny import SpyIBA, TinyData, TinyImages, TinyTask, tiny_trainer

from lightning_chex.attribution import Gradient
from lightning_chex.cli.main import main
from lightning_chex.explanations import Explainer, IBACallback
from lightning_chex.explanations.places import PlaceShares
from lightning_chex.tasks import SegmentationTask


def test_shares_of_maps_in_the_corners_at_the_edge_and_outside_the_lungs_by_hand():
    maps = torch.zeros(3, 50, 50)
    maps[0, 2, 2], maps[0, 25, 25] = 3.0, 1.0  # corner, and the edge too; lung
    maps[1, 25, 1], maps[1, 20, 20], maps[1, 5, 40] = 1.0, 1.0, -9.0  # edge; lung; what speaks against it counts not
    maps[2, 25, 25] = 2.0
    lungs = torch.zeros(3, 50, 50, dtype=torch.bool)
    lungs[:2, 15:35, 15:35] = True  # of the third image they are not known
    shares = PlaceShares(2, torch.device("cpu"))
    shares.update(maps[:2], torch.tensor([0, 1]), lungs[:2])
    shares.update(maps[2:], torch.tensor([1]), lungs[2:])
    found = {key: float(value) for key, value in shares.scores(["a", "b"]).items()}
    assert found == pytest.approx(
        {
            "corners": 0.75 / 3, "corners/a": 0.75, "corners/b": 0, "corners_every_pixel": 400 / 2500,
            "edge": (0.75 + 0.5) / 3, "edge/a": 0.75, "edge/b": 0.25, "edge_every_pixel": 1 - 44 * 44 / 2500,
            "outside_lungs": (0.75 + 0.5) / 2, "outside_lungs/a": 0.75, "outside_lungs/b": 0.5,
            "outside_lungs_every_pixel": 1 - 400 / 2500,
        }
    )  # fmt: skip


def test_without_lungs_or_with_empty_maps_there_is_nothing_to_share():
    shares = PlaceShares(1, torch.device("cpu"))
    assert shares.scores([]) == {}
    shares.update(torch.zeros(2, 20, 20), torch.zeros(2, dtype=torch.long))
    assert shares.scores([]) == {}
    shares.update(torch.ones(2, 20, 20), torch.zeros(2, dtype=torch.long))
    found = shares.scores([])
    assert found.keys() == {"corners", "corners_every_pixel", "edge", "edge_every_pixel"}
    assert found["corners"] == pytest.approx(found["corners_every_pixel"])


def test_the_callback_logs_shares_and_the_summary_tells_alarms(place, capsys):
    alarms = (
        '{class_path: lightning_chex.explanations.Alarms, init_args: {limits: {"val/iba_outside_lungs": "> 0.01"}}}'
    )
    phantom = ["--data.num_train=16", "--data.num_val=6", "--data.num_test=6"]
    main(["fit", *TINY, *phantom, f"--trainer.callbacks+={alarms}"])
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("  alarm")]
    assert "val/iba_outside_lungs 0." in line and "> 0.01 (in one validation, first in epoch 0)" in line


class LeftHalf:
    """Stands for a lung network: the lungs are the left half of every image."""

    def to(self, device):
        return self

    def __call__(self, images):
        lungs = torch.zeros(len(images), 2, *images.shape[-2:], dtype=torch.bool)
        lungs[:, 0, :, : images.shape[-1] // 2] = True
        return lungs


def test_a_lung_network_outlines_the_lungs_of_images_without_masks():
    network, images = TinyTask().model.eval(), torch.stack([own["image"] for own in TinyImages(4, 0)])
    batch = {"image": images, "label": torch.eye(2).repeat(2, 1), "place": list(range(4))}
    explainer = Explainer(Gradient(), network, ["left", "right"], 0.1, torch.device("cpu"), lungs=LeftHalf())
    found = list(explainer.explain([batch]))
    maps = torch.stack([own.saliency for own in found]).clamp(min=0)
    expected = (maps[:, :, 8:].sum((1, 2)) / maps.sum((1, 2))).mean()
    assert float(explainer.shares("iba")["outside_lungs"]) == pytest.approx(float(expected), abs=1e-6)
    masks = torch.zeros(4, 2, 16, 16, dtype=torch.bool)
    masks[:, 1, :, 8:] = True  # those of the data come first: the right half
    explainer = Explainer(Gradient(), network, ["left", "right"], 0.1, torch.device("cpu"), lungs=LeftHalf())
    list(explainer.explain([batch | {"lung_mask": masks}]))
    assert float(explainer.shares("iba")["outside_lungs"]) == pytest.approx(1 - float(expected), abs=1e-6)


def test_a_lung_network_of_the_callback_is_loaded_before_the_training(tmp_path):
    folder = tmp_path / "lungs.ckpt"
    with pytest.raises(Exception, match=r"lungs='.*lungs.ckpt' is no checkpoint to use: it does not exist"):
        tiny_trainer(tmp_path, IBACallback(SpyIBA(), lungs=str(folder))).fit(TinyTask(), TinyData())
    trainer = tiny_trainer(tmp_path)
    trainer.strategy.connect(SegmentationTask())
    trainer.save_checkpoint(folder)
    callback = IBACallback(SpyIBA(), lungs=str(folder), num_images=2, save_pictures=False)
    trainer = tiny_trainer(tmp_path, callback)
    trainer.fit(TinyTask(), TinyData())
    assert "val/iba_corners" in trainer.callback_metrics  # outside_lungs only where the network finds some
