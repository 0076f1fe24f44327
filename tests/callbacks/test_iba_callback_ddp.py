"""Two processes explain and measure what one does."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tiny import SpyIBA, TinyData, TinyTask, tiny_trainer

from lightning_chex.callbacks import IBACallback

pytestmark = pytest.mark.filterwarnings("ignore")


class Witness(pl.Callback):
    """Each process writes down what it saw, with two callbacks: one explains all images, one a single image."""

    def __init__(self, folder: Path, everything: IBACallback, single: IBACallback) -> None:
        self.folder, self.everything, self.single = folder, everything, single

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seen = {
            "explained": [
                len(torch.cat(c.attributor.images or [torch.zeros(0)])) for c in (self.everything, self.single)
            ],
            "statistics": self.everything.attributor.state_dict(),
            "logged": {key: value for key, value in trainer.callback_metrics.items() if "iou" in key},
        }
        torch.save(seen, self.folder / f"{trainer.world_size}_{trainer.global_rank}.pt")


def validate(folder: Path, devices: int) -> list[dict]:
    everything = IBACallback(SpyIBA(), num_images=-1, batch_size=3, top_fraction=0.2)
    single = IBACallback(SpyIBA(), num_images=1, name="single", save_pictures=False)
    witness = Witness(folder, everything, single)
    strategy = "ddp_spawn" if devices > 1 else "auto"
    trainer = tiny_trainer(folder / str(devices), everything, single, witness, devices=devices, strategy=strategy)
    trainer.validate(TinyTask(), TinyData(), verbose=False)
    return [torch.load(folder / f"{devices}_{rank}.pt") for rank in range(devices)]


def test_two_processes_log_what_one_does(tmp_path):
    (alone,), both = validate(tmp_path, 1), validate(tmp_path, 2)
    assert alone["explained"] == [10, 1]
    assert [rank["explained"] for rank in both] == [[5, 1], [5, 0]]  # the second has no image for the single one
    for rank in both:
        for key, value in alone["statistics"].items():
            torch.testing.assert_close(rank["statistics"][key], value, atol=1e-5, rtol=1e-5)
        assert rank["logged"].keys() == alone["logged"].keys() and "val/single_iou" in rank["logged"]
        for key, value in alone["logged"].items():
            if "random" not in key:  # each process draws its own noise
                torch.testing.assert_close(rank["logged"][key], value, atol=1e-5, rtol=0, msg=key)
    pictures = [sorted(path.name for path in (tmp_path / d / "explanations" / "validate").iterdir()) for d in "12"]
    assert len(pictures[0]) == 10 and [n[4:] for n in pictures[0]] == sorted(n[4:] for n in pictures[1])
