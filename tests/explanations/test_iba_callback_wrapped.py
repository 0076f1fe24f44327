"""A training with explanations does what it would do without, however its network is wrapped."""

import warnings

import pytest
import pytorch_lightning as pl
import timm
import torch
from pytorch_lightning.callbacks import Callback
from tiny import CLASS_NAMES, SpyIBA, TinyData, TinyTask, tiny_trainer
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.parallel import DataParallel
from torch.optim.swa_utils import AveragedModel

from lightning_chex.attribution import IBA
from lightning_chex.explanations import IBACallback

pytestmark = pytest.mark.filterwarnings("ignore:the feature statistics rest on")


def module_by_wrapper(task: TinyTask) -> nn.Module:
    return torch.compile(task, backend="aot_eager")


def module_in_place(task: TinyTask) -> nn.Module:
    task.compile(backend="aot_eager")
    return task


def network_by_wrapper(task: TinyTask) -> nn.Module:
    task.model = torch.compile(task.model, backend="aot_eager")
    return task


def network_in_place(task: TinyTask) -> nn.Module:
    task.model.compile(backend="aot_eager")
    return task


def parts(task: TinyTask) -> nn.Module:
    task.model[0] = torch.compile(task.model[0], backend="aot_eager")
    task.model[2].compile(backend="aot_eager")
    return task


def data_parallel(task: TinyTask) -> nn.Module:
    task.model = DataParallel(task.model)
    return task


class Graphs(Callback):
    """How many graphs were compiled by the end of each training epoch; Lightning validates before that."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.counts.append(counters["stats"]["unique_graphs"])


class UncountedTask(TinyTask):
    """A number that changes at every step would be compiled anew, with or without explanations."""

    def training_step(self, batch, batch_idx):
        return self.loss(batch)


TIMES = ("val/iba_seconds", "val/iba_time_share")


def trained(folder, wrap, explaining: IBACallback | None, **options) -> tuple[dict, dict, list[int]]:
    """Weights without the wrappers' names, what was logged, and the graphs compiled."""
    torch._dynamo.reset()
    counters.clear()
    pl.seed_everything(1, verbose=False)
    task, graphs = UncountedTask(), Graphs()
    trainer = tiny_trainer(
        folder, *([explaining] if explaining else []), graphs, max_epochs=3, num_sanity_val_steps=0, **options
    )
    trainer.fit(wrap(task), TinyData())
    weights = {name.replace("_orig_mod.", "").replace("module.", ""): v for name, v in task.state_dict().items()}
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name not in TIMES}
    return weights, logged, graphs.counts


def callback(**options) -> IBACallback:
    return IBACallback(SpyIBA(), num_images=-1, save_pictures=False, **options)


@pytest.fixture(scope="module")
def plainly_trained(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"), lambda task: task, callback())


@pytest.mark.parametrize(
    "wrap", [module_by_wrapper, module_in_place, network_by_wrapper, network_in_place, parts, data_parallel]
)
def test_a_wrapped_network_is_trained_and_explained_like_the_plain_one(tmp_path, plainly_trained, wrap):
    explaining = callback()
    weights, logged, graphs = trained(tmp_path, wrap, explaining)
    assert explaining.attributor.num_observed == 10
    plain_weights, plainly_logged, _ = plainly_trained
    assert weights.keys() == plain_weights.keys()
    assert all(torch.equal(value, plain_weights[name]) for name, value in weights.items())
    assert logged == plainly_logged and "val/iba_iou" in logged
    assert len(graphs) == 3 and graphs[0] == graphs[2] and (graphs[0] > 0 or wrap is data_parallel)


def test_validations_that_are_not_explained_run_compiled(tmp_path, plainly_trained):
    weights, logged, graphs = trained(tmp_path, network_by_wrapper, callback(every_n_epochs=2))
    assert graphs[0] >= 2  # one of the training, one of the validation
    assert all(torch.equal(value, plainly_trained[0][name]) for name, value in weights.items())
    assert "val/iba_iou" in logged


def test_an_averaged_network_can_be_the_one_explained(tmp_path):
    class Averaged(TinyTask):
        def __init__(self) -> None:
            super().__init__()
            self.average = AveragedModel(self.model)

        def validation_step(self, batch, batch_idx):
            self.log("val/mean", self.average(batch["image"]).mean())

    explaining = callback(network="average")
    trainer = tiny_trainer(tmp_path, explaining)
    trainer.fit(Averaged(), TinyData())
    assert explaining.attributor.num_observed == 10 and "val/iba_iou" in trainer.callback_metrics


class CheckpointedTask(TinyTask):
    """A timm network with gradient checkpointing."""

    def __init__(self, on: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = timm.create_model("resnet10t", num_classes=len(CLASS_NAMES))
        self.model.set_grad_checkpointing(on)
        self.recomputes: list[bool] = []

    def training_step(self, batch, batch_idx):
        self.recomputes.append(self.model.grad_checkpointing)
        return super().training_step(batch, batch_idx)


def test_a_network_with_gradient_checkpointing_is_explained_and_goes_on_training_with_it(tmp_path):
    results = []
    for on in (True, False):
        pl.seed_everything(1, verbose=False)
        explained = IBA("layer2", steps=2)
        task, explaining = CheckpointedTask(on), IBACallback(explained, num_images=4, save_pictures=False)
        trainer = tiny_trainer(tmp_path, explaining, max_epochs=2)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*cannot be cut at")
            trainer.fit(task, TinyData())
        assert task.recomputes == [on] * 4 and explaining.attributor.num_observed == 6
        results.append((task.state_dict(), float(trainer.callback_metrics["val/iba_iou"])))
    (weights, iou), (without, reference) = results
    assert iou == reference
    for name, value in weights.items():
        # a second forward pass moves the running averages of the batch normalisation once more
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(value, without[name]), name
