"""Weights are replaced from the output down, the network stays alive, and everything comes back bit for bit."""

import pytest
import timm
import torch
from torch import nn

from lightning_chex.evaluation import with_weights
from lightning_chex.evaluation.untrained import (
    initial_weights,
    layers_from_top,
    match_spread,
    recalibrate,
    spread_of_outputs,
    stages,
)


def built() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=3)


def network() -> nn.Module:
    """As after a training: other weights than at its beginning, and statistics of what it has seen."""
    torch.manual_seed(0)
    model = built()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.02 * torch.randn_like(parameter))
    model.train()
    for _ in range(20):
        model(images(16))
    return model.eval()


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32) * torch.rand(count, 1, 1, 1) + torch.rand(count, 1, 1, 1)


def test_layers_come_in_the_order_in_which_they_last_ran():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)).eval()
    assert layers_from_top(model, torch.zeros(1, 3, 4, 4)) == ["4", "2", "0"]


def test_weights_a_container_holds_itself_come_where_it_begins():
    """A transformer's position embedding belongs to the module around all others, and acts at the input."""
    model = timm.create_model("test_vit", num_classes=3, img_size=32).eval()
    layers = layers_from_top(model, torch.zeros(1, 3, 32, 32))
    assert layers[0] == "head" and layers[-1] == "" and layers[-2] == "patch_embed.proj"


def test_a_layer_that_does_not_run_is_not_counted():
    model = network()
    layers = layers_from_top(model, torch.zeros(1, 3, 32, 32))
    assert model.get_submodule(layers[0]) is model.get_classifier() and layers[-1] == "conv1.0"
    assert len(layers) == len(set(layers))


def test_each_stage_gives_initial_weights_to_the_top_alone_and_everything_comes_back():
    model, batch = network(), images(20)
    layers = layers_from_top(model, batch[:1])
    weights, whose = initial_weights(model, built, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = [model(batch)]
    for depth in stages(len(layers)):
        with with_weights(model, weights, layers[:depth]):
            recalibrate(model, layers[:depth], batch)
            replaced = {f"{layer}.{name}" for layer in layers[:depth] for name in ("weight", "bias")}
            for name, value in model.named_parameters():
                assert torch.equal(value, weights[name] if name in replaced else before[name])
            changed = {n.rpartition(".")[0] for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
            assert changed <= set(layers[:depth]) and layers[0] in changed
            outputs.append(model(batch))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not any(module.training for module in model.modules())
    assert whose == "the network's own"
    flat = [output.detach().flatten().tolist() for output in outputs]
    assert all(first != second for i, first in enumerate(flat) for second in flat[:i])


def test_weights_come_back_after_an_exception_too():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights, _ = initial_weights(model, built, seed=0)
    with pytest.raises(KeyboardInterrupt), with_weights(model, weights):
        recalibrate(model, layers_from_top(model, images(1)), images(4))
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_the_initialisation_is_the_networks_own_and_the_global_random_state_is_not_touched():
    model = network()
    state = torch.get_rng_state()
    weights, _ = initial_weights(model, built, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert all(torch.equal(value, weights[name]) for name, value in built().state_dict().items())


@pytest.mark.parametrize("build", [None, lambda: nn.Linear(2, 2), lambda: built(None)])  # the last one raises
def test_a_network_nobody_can_build_anew_takes_torchs_initialisation(build):
    model = network()
    weights, whose = initial_weights(model, build, seed=0)
    assert whose == "torch's" and not torch.equal(weights["conv1.0.weight"], model.conv1[0].weight)
    again, _ = initial_weights(model, build, seed=0)
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


def test_calibration_gives_normalised_features_whatever_the_number_of_images():
    """An independent reference: behind a calibrated normalisation each channel has mean 0 and variance 1."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).eval()
    for count in (2, 16, 17, 33):
        batch = 3 + 2 * torch.randn(count, 3, 8, 8)
        recalibrate(model, ["0", "1"], batch)
        with torch.no_grad():
            features = model(batch).double()
        # the mean over batches of nearly one size: exact for one batch
        assert features.mean((0, 2, 3)).abs().max() < 0.02
        assert (features.var((0, 2, 3)) - 1).abs().max() < 0.05


def test_spread_is_the_deviation_of_the_outputs_over_images():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    batch = torch.randn(40, 3, 2, 2)
    expected = model(batch).double().std(0).mean().item()
    assert spread_of_outputs(model, batch) == pytest.approx(expected, rel=1e-5)


def test_the_network_stays_alive_at_every_stage_where_torchs_initialisation_alone_kills_it():
    torch.manual_seed(0)
    model, batch = timm.create_model("densenet121", num_classes=3).eval(), images(6)
    layers = layers_from_top(model, batch[:1])
    recalibrate(model, layers, batch)  # statistics as after a training
    alive = spread_of_outputs(model, batch)
    weights, _ = initial_weights(model, lambda: timm.create_model("densenet121", num_classes=3), seed=1)
    with torch.no_grad():
        model.classifier.weight.mul_(10)  # a training makes outputs far apart
    for depth in (1, len(layers)):
        with with_weights(model, weights, layers[:depth]):
            recalibrate(model, layers[:depth], batch)
            before, after = match_spread(model, layers[0], batch, 10 * alive)
            assert before > 0.01 * alive and after == pytest.approx(10 * alive, rel=1e-3)
    torchs, _ = initial_weights(model, None, seed=1)
    with with_weights(model, torchs):  # as it was done once
        assert spread_of_outputs(model, batch) < 0.01 * alive
