"""Frozen layers, learning rates by layer, warm-up and averaged weights, through the command line where it has them."""

import math
import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from commands import TINY, the_error
from pytorch_lightning.callbacks import EMAWeightAveraging
from tiny import CLASS_NAMES, TinyData, tiny_trainer
from torch import nn

from lightning_chex.cli.main import main
from lightning_chex.data import PATHOLOGIES
from lightning_chex.maps import load_weights
from lightning_chex.tasks import ChestXrayTask, ClassificationTask, Optimization, RegressionTask, SegmentationTask

SMALL = "test_resnet"
PHANTOM = [*TINY, "--data.num_train=8", "--data.num_val=4", "--data.num_test=4", "--trainer.logger=false"]
ALONE = ["--trainer.callbacks=null"]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def start(place):
    """Weights of a DenseNet-121 as a training has left them, in ``start.pt``, and what they are."""
    task = ClassificationTask(PATHOLOGIES)
    for module in task.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    torch.save(task.model.state_dict(), "start.pt")
    return task.model.state_dict()


def last(folder) -> dict:
    (path,) = folder.rglob("last.ckpt")
    return torch.load(path, weights_only=True)


def test_all_up_to_the_named_module_stays_bit_for_bit_and_the_rest_learns(place, start):
    options = ["--model.weights=start.pt", "--model.freeze=features.transition2", "--model.lr=0.01"]
    main(["fit", *PHANTOM, *options, "--trainer.default_root_dir=out"])
    after = last(place / "work" / "out")["state_dict"]
    frozen = re.compile(r"features\.(conv0|norm0|denseblock[12]|transition[12])\.")
    assert sum(map(bool, map(frozen.match, start))) > 200
    for name, value in start.items():
        stayed = torch.equal(after[f"model.{name}"], value)
        assert stayed if frozen.match(name) else not stayed, name


class Backwards(ChestXrayTask):
    """A network whose layers are declared in another order than they run."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.last = nn.Conv2d(4, 4, 3)
            self.idle = nn.Conv2d(4, 4, 3)
            self.norm, self.drop = nn.BatchNorm2d(4), nn.Dropout(0.5)
            self.first = nn.Conv2d(3, 4, 3)
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, images):
            return self.head(self.last(self.drop(self.norm(self.first(images * self.factor)))).mean((2, 3)))


def test_the_order_is_that_of_execution_and_the_frozen_part_stays_in_evaluation_mode():
    task = Backwards(Backwards.Network(), freeze="drop")
    frozen = {name for name, parameter in task.model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"factor", "first.weight", "first.bias", "norm.weight", "norm.bias"}
    for mode in (True, False, True):
        task.train(mode)
        modes = {name: module.training for name, module in task.model.named_children()}
        assert modes == {"head": mode, "last": mode, "idle": mode, "norm": False, "drop": False, "first": False}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.freeze=layer5"], "freeze='layer5' is no module of ResNet; nearest names: layer4, layer3"),
        (["--model.freeze=fc"], "freeze='fc' leaves nothing to train: name an earlier module"),
        (["--model.head_lr=0"], r"head_lr=0\.0 must be a number greater than 0"),
        (["--model.layer_decay=1.5"], r"layer_decay=1\.5 must be above 0 and at most 1"),
        (["--model.warmup=3"], r"warmup=3\.0 must be a share of the training"),
        (["--model.warmup=0.1", "--model.schedule=one_cycle"], "one_cycle rises by itself"),
        (["--model.weight=x.pt"], "weight"),
    ],
)
def test_impossible_settings_are_named(place, capsys, options, words):
    torch.save(ClassificationTask(PATHOLOGIES, SMALL).model.state_dict(), "small.pt")
    given = [f"--model.backbone={SMALL}", "--model.weights=small.pt", "--model.schedule=constant", *options]
    assert re.search(words, the_error(capsys, "fit", *PHANTOM, *ALONE, *given))


def test_a_schedule_of_a_training_without_end_is_named(place, capsys):
    endless = ["--trainer.max_epochs=-1", "--trainer.max_steps=-1", "--trainer.max_time=00:00:00:30"]
    given = [f"--model.backbone={SMALL}", "--model.schedule=cosine", *endless]
    assert "trainer.max_epochs" in the_error(capsys, "fit", *PHANTOM, *ALONE, *given)


def test_a_warmup_may_last_for_the_whole_training():
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = Optimization(schedule="cosine", warmup=0.9).schedule_of(optimizer, 1)
    assert schedule.get_last_lr() == [0.5]
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [1.0]


def test_layers_that_have_learnt_nothing_are_not_frozen(place, capsys):
    given = [f"--model.backbone={SMALL}", "--model.freeze=layer2"]
    error = the_error(capsys, "fit", *PHANTOM, *ALONE, *given)
    assert "freezes randomly initialised layers: give --model.weights FILE" in error


def test_layers_that_timm_does_not_know_cannot_decay():
    with pytest.raises(ValueError, match=r"layer_decay=0.9, but timm does not know the layers of UnetPlusPlus"):
        SegmentationTask(layer_decay=0.9)


def rates_of(task) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in task.model.named_parameters()}
    groups = task.configure_optimizer().param_groups
    found = [(names[id(parameter)], group["lr"]) for group in groups for parameter in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


def test_the_head_has_a_learning_rate_of_its_own(place):
    given = [f"--model.backbone={SMALL}", "--model.lr=0.001", "--model.head_lr=0.02", "--model.schedule=constant"]
    main(["fit", *PHANTOM, *ALONE, *given, "--trainer.default_root_dir=out"])
    groups = last(place / "work" / "out")["optimizer_states"][0]["param_groups"]
    assert sorted((group["lr"], group["weight_decay"]) for group in groups) == [
        (0.001, 0.0),
        (0.001, 0.01),
        (0.02, 0.0),
        (0.02, 0.01),
    ]
    for task in (ClassificationTask(CLASS_NAMES, SMALL, head_lr=0.5), SegmentationTask(head_lr=0.5)):
        rates = rates_of(task)
        heads = {name for name in rates if name.startswith(("fc.", "segmentation_head."))}
        assert len(rates) == len(list(task.model.parameters())) and len(heads) == 2
        assert {rates[name] for name in heads} == {0.5} and {rates[n] for n in rates.keys() - heads} == {0.001}


def test_learning_rates_fall_from_layer_to_layer_towards_the_input():
    rates = rates_of(ClassificationTask(CLASS_NAMES, lr=0.1, layer_decay=0.9, head_lr=0.7))
    assert len(rates) == len(list(ClassificationTask(CLASS_NAMES).model.parameters()))
    assert rates["classifier.weight"] == rates["classifier.bias"] == 0.7 and rates["features.norm5.weight"] == 0.1
    layers = [
        f"features.denseblock{b}.denselayer{i}" for b, n in enumerate((6, 12, 24, 16), 1) for i in range(1, n + 1)
    ]
    for lower, upper in zip(layers, layers[1:], strict=False):
        for part in ("conv1.weight", "norm2.bias"):
            assert rates[f"{lower}.{part}"] == pytest.approx(0.9 * rates[f"{upper}.{part}"])
    assert rates["features.conv0.weight"] == pytest.approx(0.9 * rates[f"{layers[0]}.conv1.weight"])


def test_frozen_parameters_are_in_no_group():
    rates = rates_of(ClassificationTask(CLASS_NAMES, SMALL, freeze="layer2", layer_decay=0.9))
    assert rates and all(name.startswith(("layer3", "layer4", "fc")) for name in rates)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_learning_rates_rise_in_equal_steps_before_the_schedule_begins(tmp_path, schedule):
    rates: list[float] = []

    class Note(pl.Callback):
        def on_train_batch_start(self, trainer, *rest) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    task = ClassificationTask(CLASS_NAMES, SMALL, lr=0.01, schedule=schedule, warmup=0.3)
    tiny_trainer(tmp_path, Note(), max_epochs=5, limit_val_batches=0).fit(task, TinyData())  # ten steps
    rest = [1.0] * 7 if schedule == "constant" else [0.5 + 0.5 * math.cos(math.pi * i / 7) for i in range(7)]
    assert rates == pytest.approx([0.01 * factor for factor in (0.25, 0.5, 0.75, *rest)])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_every_group_follows_the_schedule(tmp_path, schedule):
    task = ClassificationTask(CLASS_NAMES, SMALL, lr=0.01, head_lr=0.1, schedule=schedule, warmup=0.5)
    trainer = tiny_trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    trainer.fit(task, TinyData())  # two steps
    expected = {"constant": [0.01, 0.1], "cosine": [0.0, 0.0]}[schedule]
    assert sorted({group["lr"] for group in trainer.optimizers[0].param_groups}) == pytest.approx(sorted(set(expected)))


class Steps(pl.Callback):
    """Keeps the weights after each step of all trainings."""

    kept: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        self.kept.append({name: value.detach().clone() for name, value in pl_module.model.state_dict().items()})


def averaged(epochs: int) -> list[str]:
    """Options of a small training on the phantom whose averaged weights are explained and saved."""
    config = {
        "seed_everything": 0,
        "trainer": {
            "max_epochs": epochs,
            "logger": False,
            "callbacks": [
                {"class_path": f"{__name__}.Steps"},
                {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.8}},
                {
                    "class_path": "lightning_chex.explanations.IBACallback",
                    "init_args": {
                        "attributor": {
                            "class_path": "lightning_chex.attribution.IBA",
                            "init_args": {"layer": "layer2", "steps": 2},
                        },
                        "num_images": 2,
                        "save_pictures": False,
                    },
                },
                {
                    "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
                    "init_args": {"monitor": "val/loss", "filename": "best", "auto_insert_metric_name": False},
                },
            ],
        },
        "model": {
            "class_path": "lightning_chex.tasks.ClassificationTask",
            "init_args": {"backbone": SMALL, "lr": 0.01, "weights": "small.pt", "freeze": "layer1"},
        },
        "data": {"class_path": "lightning_chex.data.SyntheticDataModule", "init_args": {"augment": False}},
    }
    Path("averaged.yaml").write_text(yaml.safe_dump(config))
    small = [option for option in TINY if "max_epochs" not in option and "limit" not in option]
    return ["--config=averaged.yaml", *small, "--data.num_train=8", "--data.num_val=8", "--data.num_test=4"]


def test_averaged_weights_are_validated_explained_saved_and_those_that_are_loaded(place, capsys):
    torch.manual_seed(5)
    torch.save(ClassificationTask(PATHOLOGIES, SMALL).model.state_dict(), "small.pt")
    Steps.kept = []
    main(["fit", *averaged(1), "--trainer.default_root_dir=out"])
    fitted = capsys.readouterr().out
    (best,) = (place / "work" / "out").rglob("best.ckpt")
    saved = torch.load(best, weights_only=True)["state_dict"]
    first, second = Steps.kept
    for name, value in first.items():
        if value.is_floating_point():
            expected = 0.8 * value + 0.2 * second[name]  # the average begins at the first step
            torch.testing.assert_close(saved[f"model.{name}"], expected, msg=name)
    assert any(not torch.equal(saved[f"model.{name}"], value) for name, value in second.items())
    loaded = ClassificationTask(PATHOLOGIES, SMALL)
    load_weights(loaded, best)  # as evaluate and explain do
    assert torch.equal(loaded.model.fc.weight, saved["model.fc.weight"])
    main(["validate", *averaged(1), f"--ckpt_path={best}", "--trainer.default_root_dir=again"])
    validated = capsys.readouterr().out
    assert "IoU with the marked regions" in fitted
    figure = r"(AUROC.*|.*IoU.*|.*random map.*)"
    assert re.findall(figure, fitted) == re.findall(figure, validated) != []


def test_a_training_with_averaged_weights_that_is_resumed_ends_as_one_that_was_not(place, capsys):
    torch.manual_seed(5)
    torch.save(ClassificationTask(PATHOLOGIES, SMALL).model.state_dict(), "small.pt")
    main(["fit", *averaged(2), "--trainer.default_root_dir=whole"])
    main(["fit", *averaged(1), "--trainer.default_root_dir=parts"])
    main(["fit", *averaged(2), "--trainer.default_root_dir=parts", "--ckpt_path=last"])
    whole, parts = last(place / "work" / "whole"), last(place / "work" / "parts")
    for key in ("state_dict", "current_model_state"):
        assert whole[key].keys() == parts[key].keys()
        for name, value in whole[key].items():
            assert torch.equal(parts[key][name], value), (key, name)
    assert not torch.equal(whole["state_dict"]["model.fc.weight"], whole["current_model_state"]["model.fc.weight"])


def test_frozen_layers_and_averages_go_together(tmp_path):
    task = ClassificationTask(CLASS_NAMES, SMALL, freeze="layer1", lr=0.01)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    tiny_trainer(tmp_path, EMAWeightAveraging(decay=0.5), max_epochs=2).fit(task, TinyData())
    for name, value in task.model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(("conv1", "bn1", "layer1")), name


def test_the_papers_severity_ends_in_a_relu():
    torch.manual_seed(0)
    task, plain = RegressionTask(rectified=True).eval(), RegressionTask().eval()
    head = task.model.get_classifier()
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU] and head[0].weight.shape == (1, 1024)
    assert head[0].bias.tolist() == [9.0]
    state = {name.replace("classifier.", "classifier.0."): value for name, value in plain.model.state_dict().items()}
    state["classifier.0.bias"] = torch.tensor([-0.1])
    task.model.load_state_dict(state)
    plain.model.classifier.bias.data.fill_(-0.1)
    images = torch.randn(16, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(task(images), plain(images).clamp(min=0))


def test_heads_with_and_without_relu_start_each_other(tmp_path):
    before = RegressionTask(backbone=SMALL, rectified=True)
    torch.save({"state_dict": before.state_dict(), "hyper_parameters": dict(before.hparams)}, tmp_path / "a.ckpt")
    plain = RegressionTask(backbone=SMALL, weights=str(tmp_path / "a.ckpt"))
    assert torch.equal(plain.model.fc.weight, before.model.fc[0].weight)
    torch.save({"state_dict": plain.state_dict(), "hyper_parameters": dict(plain.hparams)}, tmp_path / "b.ckpt")
    again = RegressionTask(backbone=SMALL, rectified=True, weights=str(tmp_path / "b.ckpt"))
    assert torch.equal(again.model.fc[0].weight, before.model.fc[0].weight)
