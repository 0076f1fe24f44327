"""The newest whole state of a training."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import TinyData, TinyTask, tiny_trainer

from lightning_chex.runs import LastCheckpoint, TimeLimit, WholeCheckpointIO, keep_newest_state

pytestmark = pytest.mark.filterwarnings("ignore")


class Worsening(TinyTask):
    """Is best after its first epoch."""

    def on_validation_epoch_end(self) -> None:
        self.log("val/score", -float(self.current_epoch))


class Stop(pl.Callback):
    """Ends a training in the middle of an epoch."""

    def __init__(self, epoch: int, error: BaseException) -> None:
        self.epoch = epoch
        self.error = error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch:
            raise self.error


def best() -> ModelCheckpoint:
    return ModelCheckpoint(monitor="val/score", mode="max", filename="best", auto_insert_metric_name=False)


def train(folder: Path, *callbacks, resume: Path | None = None, epochs: int = 4, same_run: bool = False, **options):
    pl.seed_everything(0)
    task = Worsening()
    trainer = tiny_trainer(folder, *callbacks, max_epochs=epochs, enable_checkpointing=True, **options)
    keep_newest_state(trainer, same_run)
    with suppress(ZeroDivisionError):  # of `Stop`: what it leaves is under test
        trainer.fit(task, datamodule=TinyData(), ckpt_path=resume)
    return trainer, task


def state(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_last_is_the_last_epoch_though_the_first_was_the_best(tmp_path):
    trainer, task = train(tmp_path, best())
    assert (state(tmp_path / "checkpoints" / "best.ckpt")["epoch"], trainer.global_step) == (0, 8)
    last = state(tmp_path / "checkpoints" / "last.ckpt")
    assert (last["epoch"], last["global_step"]) == (3, 8)
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in task.state_dict().items())
    assert trainer.checkpoint_callback.best_model_path == str(tmp_path / "checkpoints" / "best.ckpt")
    assert len(last["callbacks"]) == 2  # of the two checkpoint callbacks, under different keys


@pytest.mark.parametrize(
    "options", [{}, {"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}, {"val_check_interval": 0.5}]
)
def test_resumed_after_an_epoch_the_weights_are_those_of_an_uninterrupted_training(tmp_path, options):
    _, whole = train(tmp_path / "whole", **options)
    train(tmp_path / "torn", Stop(2, ZeroDivisionError()), **options)
    last = tmp_path / "torn" / "checkpoints" / "last.ckpt"
    assert (state(last)["epoch"], state(last)["global_step"]) == (1, 4)
    _, resumed = train(tmp_path / "torn", resume=last, **options)
    assert resumed.steps == 4  # the two epochs that were left
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_state_outlives_an_error_and_an_error_never_replaces_it(tmp_path):
    train(tmp_path, best(), Stop(2, ZeroDivisionError()))
    assert state(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 4


def test_the_best_of_a_run_that_was_moved_is_not_replaced_by_a_worse_one(tmp_path):
    train(tmp_path / "before", best(), Stop(2, ZeroDivisionError()))
    shutil.move(tmp_path / "before", tmp_path / "after")
    checkpoints = tmp_path / "after" / "checkpoints"
    trainer, _ = train(tmp_path / "after", best(), resume=checkpoints / "last.ckpt", same_run=True)
    assert trainer.checkpoint_callback.best_model_path == str(checkpoints / "best.ckpt")
    assert state(checkpoints / "best.ckpt")["epoch"] == 0
    assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_time_limit_goes_on_counting(tmp_path):
    train(tmp_path, TimeLimit("00:01:00:00"), Stop(2, ZeroDivisionError()))
    path = tmp_path / "checkpoints" / "last.ckpt"
    content = state(path)
    (key,) = [key for key in content["callbacks"] if key.startswith("TimeLimit")]
    content["callbacks"][key]["time_elapsed"]["train"] = 3601.0
    torch.save(content, path)
    trainer, task = train(tmp_path, TimeLimit("00:01:00:00"), resume=path)
    assert task.steps == 0 and trainer.global_step == 4


def test_who_has_one_keeps_it_and_who_wants_no_checkpoint_gets_none(tmp_path):
    own = LastCheckpoint()
    trainer = tiny_trainer(tmp_path, own, enable_checkpointing=True)
    keep_newest_state(trainer)
    assert [callback for callback in trainer.callbacks if isinstance(callback, LastCheckpoint)] == [own]
    default, _ = train(tmp_path / "default", epochs=1)  # Lightning's own would hold the same
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]
    assert default.checkpoint_callback.best_model_path == str(tmp_path / "default" / "checkpoints" / "last.ckpt")
    shutil.rmtree(tmp_path / "default")
    train(tmp_path / "quick", fast_dev_run=True)
    assert not list(tmp_path.rglob("*.ckpt"))
    without = tiny_trainer(tmp_path)  # with checkpoints switched off
    keep_newest_state(without)
    assert not without.checkpoint_callbacks


def test_a_run_folder_that_is_removed_ends_the_training(tmp_path):
    class Remove(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                shutil.rmtree(tmp_path / "run")

    with pytest.raises(MisconfigurationException, match="run: it was removed while this was at work"):
        train(tmp_path / "run", Remove())


def test_a_checkpoint_is_written_whole_beside_its_old_version(tmp_path):
    path = tmp_path / "a" / "b.ckpt"
    io = WholeCheckpointIO()
    io.save_checkpoint({"step": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({"step": 2, "no": lambda: 0}, path)
    assert state(path) == {"step": 1} and [own.name for own in path.parent.iterdir()] == ["b.ckpt"]
