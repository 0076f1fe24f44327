"""What the callback refuses before training, and its place among the other callbacks."""

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import SpyIBA, TinyData, TinyTask, tiny_trainer

from lightning_chex.attribution import IBA, LayerError
from lightning_chex.explanations import IBACallback
from lightning_chex.metrics import LocalizationIoU, boxes_to_mask

pytestmark = pytest.mark.filterwarnings("ignore:the feature statistics rest on")


def callback(**options) -> IBACallback:
    return IBACallback(**{"attributor": SpyIBA(), "num_images": -1, "save_pictures": False, **options})


@pytest.mark.parametrize(
    ("option", "value"),
    [("num_images", 0), ("num_images", -2), ("every_n_epochs", 0), ("batch_size", 0), ("top_fraction", 0.0)],
)
def test_impossible_settings_are_named(option, value):
    with pytest.raises(ValueError, match=f"{option}={value} must"):
        IBACallback(**{option: value})


@pytest.mark.parametrize("from_loaders", [False, True])
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"attributor": IBA("features.denseblock3")}, LayerError, "layer='features.denseblock3' is not a module of"),
        ({"attributor": IBA("6")}, LayerError, r"layer='6' gives shape \(\d, 2\), not a feature map"),
        ({"attributor": IBA("4")}, None, ""),
        (
            {"attributor": IBA("2", objective="deviation")},
            MisconfigurationException,
            "predicts classes.*class objective",
        ),
        (
            {"network": "backbone"},
            MisconfigurationException,
            "network='backbone' is not a module of TinyTask; .* model",
        ),
    ],
)
def test_what_cannot_be_explained_stops_before_the_first_step(tmp_path, options, error, words, from_loaders):
    task, data = TinyTask(), TinyData()
    loaders = (data.train_dataloader(), data.val_dataloader()) if from_loaders else (data,)
    trainer = tiny_trainer(tmp_path, callback(**options))
    if error is None:  # the other cases do not fail because everything does
        trainer.fit(task, *loaders)
        assert task.steps == 2
        return
    with pytest.raises(error, match=words):
        trainer.fit(task, *loaders)
    assert task.steps == 0
    assert not any(module._forward_hooks for module in task.modules())


def test_a_class_objective_does_not_explain_a_score(tmp_path):
    task = TinyTask(class_names=())
    with pytest.raises(
        MisconfigurationException,
        match="predicts a score .it has no class_names.*give the attributor objective: deviation",
    ):
        tiny_trainer(tmp_path, callback()).fit(task, TinyData(score=True))
    assert task.steps == 0


def test_the_module_itself_can_be_the_network(tmp_path):
    logged = []
    for options in ({}, {"network": "", "attributor": SpyIBA(layer="model.2")}):
        logged += tiny_trainer(tmp_path, callback(**options)).validate(TinyTask(), TinyData(), verbose=False)
        assert logged[-1].pop("val/iba_seconds") > 0 and 0 < logged[-1].pop("val/iba_time_share") < 1
    assert logged[0] == logged[1]


def direct_iou(model: torch.nn.Module, data: TinyData) -> float:
    maps = IBA("2", steps=2).fit(model, [data.val.images]).attribute(model, data.val.images, data.val.targets)
    metric = LocalizationIoU(2)
    regions = torch.stack(
        [boxes_to_mask(sample["boxes"], maps.shape[1:]) for sample in map(data.val.__getitem__, range(10))]
    )
    metric.update(maps, regions, data.val.targets)
    return metric.compute()["mean"].item()


@pytest.mark.parametrize("first", [False, True])
def test_averaged_weights_are_explained_wherever_the_averaging_stands(tmp_path, first):
    averaging, explaining, data, task = EMAWeightAveraging(decay=0.5), callback(), TinyData(), TinyTask(lr=0.5)
    callbacks = (averaging, explaining) if first else (explaining, averaging)
    trainer = tiny_trainer(tmp_path, *callbacks, max_epochs=2)
    raw: list[torch.Tensor] = []
    task.on_validation_end = lambda: raw.append(task.model[0].weight.detach().clone())  # swapped back by then
    trainer.fit(task, data)
    averaged = averaging._average_model.module.model.state_dict()
    explained = explaining.attributor.weights[-1]
    assert all(torch.equal(value, averaged[name]) for name, value in explained.items())
    assert not torch.equal(raw[-1], averaged["0.weight"])  # else any order would do
    expected = direct_iou(averaging._average_model.module.model, data)
    assert trainer.callback_metrics["val/iba_iou"] == pytest.approx(expected, abs=1e-5)


def test_every_callback_steps_before_the_averaging_and_keeps_its_turn(tmp_path):
    averaging, one, two = EMAWeightAveraging(), callback(), callback(name="two")
    trainer = tiny_trainer(tmp_path, averaging, one, two)
    trainer.fit(TinyTask(), TinyData())
    order = [trainer.callbacks.index(each) for each in (one, two, averaging)]
    assert order == sorted(order) and trainer.callbacks.count(one) == 1
    for explaining in (one, two):
        assert len(explaining.attributor.images) == 1
