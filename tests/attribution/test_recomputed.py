"""Weights that a hook or a parametrization computes at every call: maps as of plain weights, nothing left behind."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from unchanged import unchanged

from lightning_chex.attribution import IBA, LRP, GradCAM, Gradient, IntegratedGradients
from lightning_chex.attribution.network.recomputed import plain_weights, set_weight
from lightning_chex.evaluation.untrained import initial_weights, layers_from_top, match_spread, with_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*features of.*")


class Doubled(nn.Module):
    """A parametrization of a user's own, without an inverse."""

    def forward(self, weight):
        return 2 * weight


def halved(module, name):
    with torch.no_grad():
        getattr(module, name).mul_(0.5)
    parametrize.register_parametrization(module, name, Doubled())


RECOMPUTED = {
    "prune.identity": prune.identity,
    "prune.random": lambda module, name: prune.random_unstructured(module, name, amount=0.3),
    "prune.twice": lambda module, name: prune.l1_unstructured(prune.identity(module, name), name, amount=0.3),
    "weight_norm": old_weight_norm,
    "spectral_norm": old_spectral_norm,
    "parametrizations.weight_norm": parametrizations.weight_norm,
    "parametrizations.spectral_norm": parametrizations.spectral_norm,
    "parametrize": halved,
}
"""Each recomputes ``weight``; see also NO_CHANGE."""

NO_CHANGE = ("prune.identity", "weight_norm", "parametrizations.weight_norm", "parametrize")
"""With these the network computes what it computed before."""


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    nn.init.uniform_(model[1].weight, 0.5, 1.5)
    model[1].running_mean.uniform_(-0.2, 0.2)
    return model


LAYERS = (0, 3, 7)


@pytest.fixture(params=RECOMPUTED)
def kind(request):
    return request.param


@pytest.fixture
def recomputed(kind):
    model = network()
    for layer in LAYERS:
        RECOMPUTED[kind](model[layer], "weight")
    with torch.no_grad():
        model(torch.randn(4, 3, 12, 12))  # in training mode: spectral norms iterate
    return model


def plain_twin(model):
    """The same network with the weights it uses in evaluation mode as plain parameters, taken from its own calls."""
    used = {}
    handles = [
        model[i].register_forward_hook(lambda m, *_, i=i: used.update({i: m.weight.detach().clone()})) for i in LAYERS
    ]
    mode = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 12, 12))
    model.train(mode)
    for handle in handles:
        handle.remove()
    twin = network()
    for i in LAYERS:
        twin[i].weight.data = used[i]
    twin[1].load_state_dict(model[1].state_dict())
    return twin.train(mode)


@pytest.fixture
def images():
    return torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))


TARGET = torch.tensor([0, 1, 2])

METHODS = {
    "LRP": lambda: LRP("signed"),
    "Gradient": Gradient,
    "IntegratedGradients": lambda: IntegratedGradients(steps=4),
    "GradCAM": lambda: GradCAM("4"),
    "IBA": lambda: IBA("2", steps=3),
}


@pytest.mark.parametrize("name", METHODS)
def test_maps_are_those_of_the_network_with_plain_weights(recomputed, images, name):
    twin = plain_twin(recomputed)
    batch = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    expected = METHODS[name]().fit(twin, [batch]).attribute(twin, images, TARGET)
    with unchanged(recomputed):
        found = METHODS[name]().fit(recomputed, [batch]).attribute(recomputed, images, TARGET)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NO_CHANGE, indirect=True)
def test_a_change_of_form_alone_does_not_change_the_map(kind, images):
    model = network()
    before = LRP("signed").attribute(model, images, TARGET)
    for layer in LAYERS:
        RECOMPUTED[kind](model[layer], "weight")
    torch.testing.assert_close(LRP("signed").attribute(model, images, TARGET), before, rtol=1e-4, atol=1e-5)


def state_of(model):
    """All dictionaries of all modules, by identity and in order."""
    parts = ("_parameters", "_buffers", "_modules", "_forward_pre_hooks", "_forward_hooks")
    return [
        (type(m), [[(k, id(v)) for k, v in m.__dict__[p].items()] for p in parts], id(m.__dict__.get("weight")))
        for m in model.modules()
    ]


def test_everything_is_in_its_place_and_order_after_an_exception(recomputed, images):
    calls = []
    recomputed[3].register_forward_pre_hook(lambda module, inputs: calls.append(module.weight.shape))
    for parameter in recomputed.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state_of(recomputed)
    with unchanged(recomputed), pytest.raises(ValueError, match="outputs 0 to 2"):
        LRP().attribute(recomputed, images, torch.tensor([0, 1, 3]))
    assert state_of(recomputed) == before
    assert calls and set(calls) == {(5, 6, 3, 3)}
    with pytest.raises(ZeroDivisionError), plain_weights(recomputed.eval()):
        assert isinstance(recomputed[3]._parameters["weight"], nn.Parameter)
        raise ZeroDivisionError
    assert state_of(recomputed) == before
    recomputed.train()(images).sum().backward()  # still trains: hooks and parametrizations run again
    names = [name for name, parameter in recomputed.named_parameters() if parameter.grad is None]
    assert names == []


def test_a_weight_set_by_an_unknown_hook_is_refused(images):
    model = network()
    value = model[3].weight.detach().clone()
    del model[3].weight
    model[3].register_forward_pre_hook(lambda module, inputs: setattr(module, "weight", value))
    with torch.no_grad():
        model(images)
    with pytest.raises(ValueError, match=r"weight of 3, a Conv2d, .* torch\.nn\.utils\.parametrize"):
        LRP().attribute(model, images, TARGET)


def test_a_parameter_of_two_modules_is_not_merged_with_a_batch_normalisation(images):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3),
    ).eval()  # fmt: skip
    model[1].running_var.fill_(9.0)
    model[3].weight, model[3].bias = model[0].weight, model[0].bias
    with torch.no_grad():
        before = model(images)
        with LRP()._rules(model, images[:1]):
            torch.testing.assert_close(model(images), before)


@pytest.mark.parametrize("kind", [kind for kind in RECOMPUTED if kind != "parametrize"], indirect=True)
def test_randomised_weights_take_effect_and_are_taken_back(recomputed, kind, images):
    model = recomputed.eval()
    if kind == "weight_norm":
        model.train()(images).sum().backward()  # leaves a weight that is part of a graph, which deepcopy refuses
        model.zero_grad()
        model.eval()
    layers = layers_from_top(model, images[:1])
    assert layers == ["7", "3", "1", "0"]
    with torch.no_grad():
        before = model(images)
        weights, whose = initial_weights(model, None, seed=1)
        assert whose == "torch's"
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        for depth in range(1, 5):
            with with_weights(model, weights, layers[:depth]):
                randomised = model(images)
                assert (randomised - before).abs().max() > 1e-3
                spread, scaled = match_spread(model, "7", images, 2.0)
                if "spectral" not in kind:  # whose largest singular value stays 1
                    assert scaled == pytest.approx(2.0, rel=1e-3) != pytest.approx(spread, rel=1e-2)
        assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
        torch.testing.assert_close(model(images), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["prune.identity", "weight_norm", "parametrizations.weight_norm"], indirect=True)
def test_the_drawn_weights_are_those_of_the_plain_network(recomputed, images):
    plain, _ = initial_weights(network(), None, seed=1)
    expected = network().eval()
    expected.load_state_dict(plain)
    drawn, _ = initial_weights(recomputed, None, seed=1)
    recomputed.eval().load_state_dict(drawn)
    with torch.no_grad():
        torch.testing.assert_close(recomputed(images), expected(images), rtol=1e-4, atol=1e-5)


def test_a_spectral_norm_stays_one_when_the_weight_is_replaced():
    for kind in ("spectral_norm", "parametrizations.spectral_norm"):
        layer = RECOMPUTED[kind](nn.Linear(6, 4), "weight").eval()
        value = torch.diag(torch.tensor([8.0, 2.0, 1.0, 0.5]))
        wide = torch.cat([value, torch.zeros(4, 2)], 1)
        set_weight(layer, "weight", wide)
        with torch.no_grad():
            found = layer(torch.eye(6)).T - layer.bias[:, None]
        torch.testing.assert_close(found, wide / 8, rtol=1e-4, atol=1e-4)


def test_a_parametrization_without_an_inverse_says_so():
    layer = nn.Linear(3, 2)
    halved(layer, "weight")
    with pytest.raises(ValueError, match="Doubled has no right_inverse"):
        set_weight(layer, "weight", torch.zeros(2, 3))
    assert copy.deepcopy(layer)(torch.ones(1, 3)).shape == (1, 2)
