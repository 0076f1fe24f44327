import math

import pytest
import torch
import wandb
import wandb_reader
from pytorch_lightning import Callback
from pytorch_lightning.loggers import WandbLogger
from tiny import TinyData, TinyTask, tiny_trainer

from lightning_chex.explanations import Alarms


class Figures(Callback):
    """Logs given figures, one a validation."""

    def __init__(self, **values: list[float]) -> None:
        self.values = values

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        for name, own in self.values.items():
            if (
                trainer.current_epoch < len(own)
                and not trainer.sanity_checking
                and own[trainer.current_epoch] is not None
            ):
                pl_module.log(f"val/{name}", own[trainer.current_epoch])


def run(folder, limits, epochs=3, ckpt_path=None, logger=False, **values) -> Alarms:
    alarms = Alarms(limits)
    options = {"limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 1, "logger": logger}
    trainer = tiny_trainer(folder, alarms, Figures(**values), max_epochs=epochs, **options)
    trainer.fit(TinyTask(), TinyData(), ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / "after.ckpt")
    return alarms


def test_an_alarm_is_raised_at_the_first_value_beyond_and_keeps_the_worst(tmp_path):
    values = {"corners": [0.1, 0.5, 0.4, 0.2], "auroc": [0.9, 0.7, math.nan, 0.5], "edge": [0.3, 0.3, 0.3, 0.3]}
    with pytest.warns(UserWarning, match=r"alarm: val/corners 0.5 > 0.3 \(in one validation, first in epoch 1\)"):
        alarms = run(tmp_path, {"val/corners": "> 0.3", "val/auroc": "<0.6", "val/edge": "> 0.3"}, 4, **values)
    assert {own.figure: str(own) for own in alarms.alarms.values()} == {
        "val/corners": "val/corners 0.5 > 0.3 (in 2 validations, first in epoch 1)",
        "val/auroc": "val/auroc 0.5 <0.6 (in one validation, first in epoch 3)",
    }


def test_a_star_stands_for_every_class_and_a_resumed_run_goes_on(tmp_path):
    limits, values = {"val/corners/*": "> 0.3"}, {"corners/Mass": [0.4, 0.4, 0.1], "corners/Nodule": [0.1, 0.1, 0.9]}
    run(tmp_path, limits, 2, **values)
    alarms = run(tmp_path, limits, 3, ckpt_path=tmp_path / "after.ckpt", **values)
    found = {own.figure: (own.first, own.epochs, own.worst) for own in alarms.alarms.values()}
    assert found == {
        "val/corners/Mass": (0, 2, pytest.approx(0.4)),
        "val/corners/Nodule": (2, 1, pytest.approx(0.9)),
    }


def test_a_value_counts_once_though_it_is_logged_now_and_then_and_two_limits_match(tmp_path):
    limits = {"val/corners": "> 0.3", "val/corner*": "> 0.3", "val/c*": "> 0.9"}
    alarms = run(tmp_path, limits, 4, corners=[None, 0.5, None, 0.95])
    found = {key: (own.first, own.epochs) for key, own in alarms.alarms.items()}
    assert found == {("val/corners", "> 0.3"): (1, 2), ("val/corners", "> 0.9"): (3, 1)}


def test_wandb_gets_each_alarm_once(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    run(tmp_path, {"val/corners": "> 0.3"}, 3, logger=logger, corners=[0.4, 0.5, 0.6])
    logger.experiment.finish()
    wandb.teardown()  # waits until the file is whole
    told = [own.alert for own in wandb_reader.records(wandb_reader.run_file(tmp_path)) if own.HasField("alert")]
    assert [(own.title, own.text) for own in told] == [
        ("val/corners", "val/corners 0.4 > 0.3 (in one validation, first in epoch 0)")
    ]


def test_a_limit_on_what_nobody_logs_is_told_once_with_near_names(tmp_path, recwarn):
    run(tmp_path, {"val/corner": "> 0.3"}, 3, corners=[0.4, 0.5, 0.6])
    told = [str(own.message) for own in recwarn if "nothing is logged" in str(own.message)]
    assert len(told) == 1 and "'val/corner'" in told[0] and "val/corners" in told[0]


@pytest.mark.parametrize("limit", ["0.3", 0.3, "=> 0.3", "> much", "> nan", ""])
def test_a_limit_that_cannot_be_read_is_named(limit):
    with pytest.raises(ValueError, match=f"the limit {str(limit)!r} cannot be read: give '> NUMBER'"):
        Alarms({"val/auroc": limit})


def test_no_limit_is_named():
    with pytest.raises(ValueError, match="limits is empty"):
        Alarms({})


def test_alarms_leave_the_training_as_it_is(tmp_path):
    def weights(*callbacks):
        trainer = tiny_trainer(tmp_path, *callbacks, max_epochs=2)
        task = TinyTask()
        trainer.fit(task, TinyData())
        return task.state_dict()

    one, other = weights(), weights(Alarms({"val/loss": "> 0.0001"}))
    assert all(torch.equal(one[key], other[key]) for key in one)
