"""What both tasks share: backbone, optimiser, schedule, checkpoints."""

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import CLASS_NAMES, TinyData, tiny_trainer

from lightning_chex.tasks import ClassificationTask, RegressionTask, backbone, create_backbone

SMALL = "test_resnet"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "densnet121"}, "backbone='densnet121' is unknown to timm; nearest names: .*densenet121"),
        ({"optimizer": "adamv"}, "optimizer='adamv' could not be built"),
        ({"schedule": "cosin"}, "schedule='cosin' is unknown; choose constant, cosine or one_cycle"),
        ({"lr": 0.0}, "lr=0.0 must be a number greater than 0"),
        ({"lr": -1.0}, "lr=-1.0 must be a number greater than 0"),
        ({"lr": float("inf")}, "lr=inf must be a number greater than 0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be a number, 0 or more"),
        ({"weight_decay": float("nan")}, "weight_decay=nan must be a number, 0 or more"),
        ({"momentum": 1.0}, "momentum=1.0 must be at least 0 and below 1"),
        ({"lr": float("nan")}, "lr=nan must be a number greater than 0"),
        ({"lr": "fast"}, "lr='fast' is a str: give a number"),
        ({"lr": True}, "lr=True is a bool: give a number"),
        ({"head_lr": -0.1}, "head_lr=-0.1 must be a number greater than 0"),
        ({"head_lr": float("inf")}, "head_lr=inf must be a number greater than 0"),
        ({"weight_decay": float("inf")}, "weight_decay=inf must be a number, 0 or more"),
        ({"weight_decay": None}, "weight_decay=None is a NoneType: give a number"),
        ({"layer_decay": 0.0}, "layer_decay=0.0 must be above 0 and at most 1"),
        ({"layer_decay": 1.1}, "layer_decay=1.1 must be above 0 and at most 1"),
        ({"layer_decay": float("nan")}, "layer_decay=nan must be above 0 and at most 1"),
        ({"warmup": 1.0}, "warmup=1.0 must be a share of the training"),
        ({"warmup": -0.1}, "warmup=-0.1 must be a share of the training"),
        ({"warmup": float("nan")}, "warmup=nan must be a share of the training"),
    ],
)
def test_impossible_settings_are_named_at_construction(options, words):
    for make in (RegressionTask, lambda **given: ClassificationTask(CLASS_NAMES, **given)):
        with pytest.raises(ValueError, match=words):
            make(**{"backbone": SMALL, **options})


def test_pretrained_weights_out_of_reach_are_one_error_with_the_remedy_for(monkeypatch):
    def offline(name, **options):
        assert options["pretrained"]
        raise ConnectionError("cannot reach the hub\n(a long story)")

    monkeypatch.setattr(backbone.timm, "create_model", offline)
    with pytest.raises(RuntimeError, match="pretrained=True.*'test_resnet'.*cannot reach the hub") as caught:
        create_backbone(SMALL, 2, pretrained=True)
    assert "set pretrained: false" in str(caught.value) and "long story" not in str(caught.value)


def test_pretrained_asks_for_weights_and_names_with_weights_are_known(monkeypatch):
    asked = []
    monkeypatch.setattr(backbone.timm, "create_model", lambda name, **options: asked.append((name, options)))
    create_backbone("densenet121.tv_in1k", 3, pretrained=True)
    assert asked == [("densenet121.tv_in1k", {"num_classes": 3, "pretrained": True})]


@pytest.mark.parametrize(("name", "nesterov"), [("momentum", False), ("sgd", True)])
def test_momentum_is_the_papers_optimiser_and_sgd_is_nesterovs(name, nesterov):
    task = RegressionTask(backbone=SMALL, optimizer=name, lr=0.1, weight_decay=0.0, momentum=0.9)
    optimizer = task.configure_optimizer()
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["nesterov"] is nesterov
    weight = next(task.model.parameters())
    start, gradients = weight.detach().clone(), [torch.randn_like(weight) for _ in range(3)]
    velocity, expected = torch.zeros_like(weight), start.clone()
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        velocity = 0.9 * velocity + gradient
        expected -= 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("name", ["adamw", "sgd", "momentum", "rmsprop"])
def test_biases_and_normalisation_are_not_decayed(name):
    task = RegressionTask(backbone=SMALL, optimizer=name, lr=0.3, weight_decay=0.2)
    decay = {id(p): group["weight_decay"] for group in task.configure_optimizer().param_groups for p in group["params"]}
    assert len(decay) == len(list(task.model.parameters()))
    assert all(decay[id(p)] == (0.2 if p.ndim > 1 else 0) for p in task.model.parameters())


class Rates(pl.Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer, *rest) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_schedule_moves_at_every_step_and_ends_with_the_training(tmp_path, schedule):
    rates = Rates()
    task = ClassificationTask(CLASS_NAMES, SMALL, lr=0.01, schedule=schedule)
    tiny_trainer(tmp_path, rates, max_epochs=4, limit_val_batches=0).fit(task, TinyData())
    assert len(rates.rates) == 8
    if schedule == "constant":
        assert rates.rates == [0.01] * 8
    elif schedule == "cosine":
        expected = [0.005 * (1 + math.cos(math.pi * i / 8)) for i in range(1, 9)]
        assert rates.rates == pytest.approx(expected, abs=1e-8)
    else:
        peak = max(rates.rates)
        assert peak == pytest.approx(0.01, rel=0.2) and 0 < rates.rates.index(peak) < 4
        assert rates.rates[-1] < 1e-3 and rates.rates[0] < peak


def make(kind, **options):
    return kind(**({"class_names": CLASS_NAMES} if kind is ClassificationTask else {}), backbone=SMALL, **options)


def fit(folder, task, epochs: int, **options):
    pl.seed_everything(0, verbose=False)
    trainer = tiny_trainer(folder, max_epochs=epochs)
    trainer.fit(task, TinyData(score=isinstance(task, RegressionTask)), **options)
    return trainer


PLAIN = (str, int, float, bool, type(None))


def plain(value) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return type(value) in PLAIN


@pytest.mark.parametrize("kind", [ClassificationTask, RegressionTask])
def test_a_checkpoint_is_tensors_and_plain_values_and_gives_the_same_model(tmp_path, kind):
    task = make(kind, lr=0.02)
    fit(tmp_path, task, 1).save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert plain(dict(checkpoint["hyper_parameters"])) and checkpoint["hyper_parameters"]["lr"] == 0.02
    restored = kind.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    images = TinyData().test.images
    assert torch.equal(restored(images), task.eval()(images))


@pytest.mark.parametrize("kind", [ClassificationTask, RegressionTask])
def test_a_checkpoint_of_a_pretrained_start_loads_without_a_network(tmp_path, monkeypatch, kind):
    real = backbone.timm.create_model
    monkeypatch.setattr(backbone.timm, "create_model", lambda name, pretrained=False, **rest: real(name, **rest))
    task = make(kind, pretrained=True)
    fit(tmp_path, task, 1).save_checkpoint(tmp_path / "last.ckpt")

    def refuse(name, pretrained=False, **rest):
        assert not pretrained
        return real(name, **rest)

    monkeypatch.setattr(backbone.timm, "create_model", refuse)
    kind.load_from_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("kind", "option", "others"),
    [
        (ClassificationTask, "class_names", ["right", "left"]),  # as many outputs: the weights would load
        (RegressionTask, "score_names", ["age"]),
    ],
)
def test_weights_of_other_outputs_are_refused(tmp_path, kind, option, others):
    task = make(kind)
    trainer = fit(tmp_path, task, 1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    data = TinyData(score=kind is RegressionTask)
    if kind is ClassificationTask:
        data.class_names = tuple(others)
    with pytest.raises(MisconfigurationException, match=f"model of .*'{option}'.*this one is of .*{others[0]}.*: give"):
        trainer.test(kind(**{option: others}, backbone=SMALL), data, ckpt_path=tmp_path / "last.ckpt")
    trainer.test(make(kind), TinyData(score=kind is RegressionTask), ckpt_path=tmp_path / "last.ckpt")
    other = RegressionTask if kind is ClassificationTask else ClassificationTask
    with pytest.raises(MisconfigurationException, match=f"model of .*'{option}'.*: give the configuration"):
        trainer.test(make(other), TinyData(score=other is RegressionTask), ckpt_path=tmp_path / "last.ckpt")


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_training_resumed_for_longer_follows_the_longer_schedule(tmp_path, schedule):
    tiny_trainer(tmp_path, max_epochs=1, enable_checkpointing=True).fit(
        make(ClassificationTask, schedule=schedule), TinyData()
    )
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    task = make(ClassificationTask, schedule=schedule)
    rates: list[float] = []

    class Note(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = tiny_trainer(tmp_path, Note(), max_epochs=3)
    trainer.fit(task, TinyData(), ckpt_path=checkpoint, weights_only=True)
    assert trainer.current_epoch == 3
    steps = trainer.global_step
    first = rates[0] / task.lr
    # a third of the way: 0.5 + 0.5 cos(pi / 3) of the cosine; of the cycle just behind its peak at 0.3
    assert first == pytest.approx(0.75, abs=1e-6) if schedule == "cosine" else 0.75 < first < 1
    assert len(rates) == steps * 2 // 3
    assert rates[-1] < 0.2 * max(rates)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path, schedule):
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    def seeded() -> ClassificationTask:
        pl.seed_everything(3, verbose=False)
        return make(ClassificationTask, schedule=schedule)

    class InOrder(TinyData):
        def train_dataloader(self):
            return self.test_dataloader()

    whole, resumed = seeded(), seeded()
    tiny_trainer(tmp_path, Stop(), max_epochs=2).fit(whole, InOrder())
    tiny_trainer(tmp_path, max_epochs=2).fit(resumed, InOrder(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_images_of_any_memory_layout_give_the_same():
    task = ClassificationTask(CLASS_NAMES, SMALL).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(task(images), task(images.contiguous(memory_format=torch.channels_last)))
