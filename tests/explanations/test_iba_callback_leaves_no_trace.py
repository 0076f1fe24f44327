"""The callback leaves model, random state and training bit for bit as they would be without it."""

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tiny import SpyIBA, TinyData, TinyTask, tiny_trainer
from torch import nn

from lightning_chex.explanations import IBACallback

pytestmark = pytest.mark.filterwarnings("ignore:the feature statistics rest on")


def callback(**options) -> IBACallback:
    return IBACallback(**{"attributor": SpyIBA(), "num_images": -1, "save_pictures": False, **options})


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def random_states() -> tuple:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


class Snapshot(Callback):
    """Everything there is to say of the model, before and after a validation and all its callbacks."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def look(self, task: pl.LightningModule) -> None:
        self.seen.append(
            {
                "state": {name: value.clone() for name, value in task.state_dict().items()},
                "flags": [module.training for module in task.modules()],
                "requires_grad": [parameter.requires_grad for parameter in task.parameters()],
                "grad": [None if p.grad is None else p.grad.clone() for p in task.parameters()],
                "hooks": hooks(task),
                "random": random_states(),
            }
        )


class Before(Snapshot):
    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        with torch.inference_mode(False):
            for parameter in pl_module.parameters():
                parameter.grad = torch.full_like(parameter, 7)  # Lightning has zeroed the training's
        pl_module.model[3].train()  # a mixture of flags
        self.look(pl_module)


class After(Snapshot):
    def on_validation_end(self, trainer, pl_module) -> None:
        self.look(pl_module)


@pytest.mark.parametrize("kept", [False, True])
def test_model_and_random_states_are_as_before(tmp_path, kept):
    task, data = TinyTask(), TinyData()
    task.model[0].weight.requires_grad_(False)
    before, after = Before(), After()
    trainer = tiny_trainer(tmp_path, before, callback(save_pictures=True), after, num_sanity_val_steps=0)
    if kept:
        trainer.fit(task, data.train_dataloader(), data.val_dataloader())
    else:
        trainer.fit(task, data)
    (first,), (second,) = before.seen, after.seen
    assert first["hooks"] == 1 and second["hooks"] == 0  # the one that watches the features
    assert first["flags"] == second["flags"] and first["requires_grad"] == second["requires_grad"]
    assert first["random"] == second["random"]
    assert all(torch.equal(value, second["state"][name]) for name, value in first["state"].items())
    assert all(torch.equal(a, b) for a, b in zip(first["grad"], second["grad"], strict=True))


@pytest.mark.parametrize("kept", [False, True])
def test_training_is_bit_for_bit_the_same_with_and_without(tmp_path, kept):
    weights, ends = [], []
    for callbacks in ([], [callback()], [callback(every_n_epochs=2, num_images=3, save_pictures=True)]):
        pl.seed_everything(1, verbose=False)
        task, data = TinyTask(), TinyData()
        trainer = tiny_trainer(tmp_path, *callbacks, max_epochs=4)
        if kept:
            trainer.fit(task, data.train_dataloader(), data.val_dataloader())
        else:
            trainer.fit(task, data)
        weights.append(task.state_dict())
        ends.append(random_states())
    assert ends[0] == ends[1] == ends[2]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]) and torch.equal(value, weights[2][name]), name


def test_training_modes_and_gradients_outlive_a_validation_in_mid_epoch(tmp_path):
    class Train(TinyTask):
        modes: list[list[bool]] = []

        def training_step(self, batch, batch_idx):
            self.modes.append([module.training for module in self.model.modules()])
            return super().training_step(batch, batch_idx)

    task = Train()
    trainer = tiny_trainer(tmp_path, callback(), val_check_interval=1, accumulate_grad_batches=2)
    trainer.fit(task, TinyData())
    assert len(task.modes) == 2 and all(all(modes) for modes in task.modes)


def test_a_broken_validation_leaves_no_hook_and_the_old_statistics(tmp_path):
    task, data, explaining = TinyTask(), TinyData(), callback()
    trainer = tiny_trainer(tmp_path, explaining)
    trainer.validate(task, data, verbose=False)
    statistics = explaining.attributor.statistics
    data.val.broken_at = 6
    with pytest.raises(OSError, match="image 6"):
        trainer.validate(task, data, verbose=False)
    assert hooks(task) == 0 and explaining.attributor.statistics is statistics and statistics.count == 10
    data.val.broken_at = None
    (logged,) = trainer.validate(task, data, verbose=False)
    assert explaining.attributor.statistics is not statistics and explaining.attributor.num_observed == 10
    assert "val/iba_iou" in logged


def test_an_exception_while_explaining_leaves_the_model_as_it_was(tmp_path):
    def fail_in_optimization(*args):
        raise RuntimeError("halfway")

    class Breaking(SpyIBA):
        @property
        def noise_share(self):
            return fail_in_optimization

    task = TinyTask()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with pytest.raises(RuntimeError, match="halfway"):
        tiny_trainer(tmp_path, callback(attributor=Breaking())).validate(task, TinyData(), verbose=False)
    assert hooks(task) == 0 and all(parameter.requires_grad for parameter in task.parameters())
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in before.items())


def test_maps_are_the_same_at_every_validation(tmp_path):
    trainer = tiny_trainer(tmp_path, callback())
    task, data = TinyTask(), TinyData()
    first, second = (trainer.validate(task, data, verbose=False)[0] for _ in range(2))
    for logged in (first, second):  # all but what the clock says
        del logged["val/iba_seconds"], logged["val/iba_time_share"]
    assert first == second and len(first) > 10
