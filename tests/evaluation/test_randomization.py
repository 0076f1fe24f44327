"""Weights are replaced from the output down, and come back bit for bit."""

import timm
import torch
from torch import nn

from lightning_chex.evaluation.randomization import layers_from_top, reinitialized, stages


def network() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    return model.eval()


def test_layers_come_in_the_order_in_which_they_last_ran():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)).eval()
    assert layers_from_top(model, torch.zeros(1, 3, 4, 4)) == [model[4], model[2], model[0]]


def test_a_layer_that_does_not_run_is_not_counted():
    model = network()
    layers = layers_from_top(model, torch.zeros(1, 3, 32, 32))
    assert layers[0] is model.get_classifier() and layers[-1] is model.conv1[0]
    assert len(layers) == len(set(layers))


def test_each_stage_changes_the_top_alone_and_everything_comes_back():
    model = network()
    layers = layers_from_top(model, torch.zeros(1, 3, 32, 32))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.randn(1, 3, 32, 32)
    state = torch.get_rng_state()
    outputs = [model(image)]
    for depth in stages(len(layers)):
        with reinitialized(layers[:depth], seed=1):
            changed = {
                m
                for m in layers
                if any(not torch.equal(v, before[_name(model, m, n)]) for n, v in m.state_dict().items())
            }
            assert changed <= set(layers[:depth]) and layers[0] in changed
            outputs.append(model(image))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    flat = [output.detach().flatten().tolist() for output in outputs]
    assert all(first != second for i, first in enumerate(flat) for second in flat[:i])


def _name(model: nn.Module, module: nn.Module, parameter: str) -> str:
    prefix = next(name for name, own in model.named_modules() if own is module)
    return f"{prefix}.{parameter}"


def test_weights_come_back_after_an_exception_too():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        with reinitialized(layers_from_top(model, torch.zeros(1, 3, 32, 32)), seed=0):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_seed_gives_the_same_weights_whatever_follows():
    model = network()
    layers = layers_from_top(model, torch.zeros(1, 3, 32, 32))
    kept = []
    for depth in (1, len(layers)):
        with reinitialized(layers[:depth], seed=5):
            kept.append(layers[0].weight.detach().clone())
    assert torch.equal(kept[0], kept[1])
