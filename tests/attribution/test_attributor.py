"""The template that runs every method: what it hands to a method of one's own, and what it takes back."""

import pytest
import torch
from torch import nn

from lightning_chex.attribution import (
    IBA,
    Attributor,
    GradCAM,
    InverseIBA,
    LayeredAttributor,
    LayerError,
    MultiLayerIBA,
    RandomMap,
    explained_output,
    frozen,
    layer_learners,
)


class Sensitivity(Attributor):
    """What a user writes: squared gradient of the explained output, changing its inputs in place."""

    explains_class = None

    def maps(self, model, images, target):
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(explained_output(model(images), target).sum(), images)
        with torch.no_grad():
            images.zero_()
            if target is not None:
                target.zero_()
        return gradient.square().sum(1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).train()


def test_a_method_of_ones_own_gets_clean_tensors_whatever_calls_it(model):
    images, target = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    kept, wanted = images.clone(), target.clone()
    expected = Sensitivity().attribute(model, images, target)
    with torch.inference_mode():
        made_inside, target_inside = images.clone(), target.clone()
        inside = Sensitivity().attribute(model, made_inside, target_inside)
    with torch.no_grad():
        without_gradients = Sensitivity().attribute(model, images, target)
    torch.testing.assert_close(inside, expected, rtol=0, atol=0)
    torch.testing.assert_close(without_gradients, expected, rtol=0, atol=0)
    assert not expected.requires_grad and not inside.is_inference() and expected.dtype == torch.float32
    assert torch.equal(images, kept) and torch.equal(target, wanted)
    assert torch.equal(made_inside, kept) and torch.equal(target_inside, wanted)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_method_that_shares_work_among_targets_gets_clean_tensors_too(model):
    class Shared(Sensitivity):
        def compute(self, model, images, targets):
            assert not images.is_inference() and not targets.values.is_inference() and not images.requires_grad
            return super().compute(model, images, targets)

    images, target = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    with torch.inference_mode():
        assert Shared().attribute(model, images.clone(), target.clone()).shape == (2, 8, 8)
    assert Shared().attribute(model, images.requires_grad_(), target).shape == (2, 8, 8)


def test_chunks_rows_and_several_targets_give_the_maps_of_one_at_a_time(model):
    images = torch.randn(4, 3, 8, 8)
    target = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])
    method = Sensitivity(batch_size=3)
    maps = method.attribute(model, images, target)
    assert maps.shape == (4, 2, 8, 8)
    for row in range(4):
        for t in range(2):
            alone = Sensitivity().attribute(model, images[row : row + 1], target[row, t][None])
            torch.testing.assert_close(maps[row, t], alone[0], rtol=1e-5, atol=1e-8)
    rows = torch.tensor([3, 0, 3])
    torch.testing.assert_close(
        method.attribute(model, images, torch.tensor([2, 1, 1]), rows),
        torch.stack([maps[3, 0], maps[0, 1], maps[3, 1]]), rtol=1e-5, atol=1e-8,
    )  # fmt: skip
    nothing = torch.zeros(0, dtype=torch.long)
    assert method.attribute(model, images, nothing, nothing).shape == (0, 8, 8)
    assert method.explain(model, images, target).convergence.isnan().all()


def test_what_a_method_returns_is_checked(model):
    class Flat(Attributor):
        def maps(self, model, images, target):
            return images.mean((1, 2, 3))

    class Nothing(Attributor):
        pass

    images, target = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"Flat.maps returned shape \(2,\), not a tensor \(2, 8, 8\)"):
        Flat().attribute(model, images, target)
    with pytest.raises(NotImplementedError, match="Nothing must implement maps"):
        Nothing().attribute(model, images, target)
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        Sensitivity(batch_size=0)
    with pytest.raises(TypeError, match=r"Old overrides attribute\(\), .* implement maps\(model, images, target\)"):

        class Old(Attributor):
            def attribute(self, model, images, target=None, rows=None):
                return images[:, 0]


def test_convergence_is_the_maps_change_over_the_last_fifth_of_the_steps(model):
    images, target = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2])
    # at the layer's own resolution, 6 x 6, cells are pixels
    settings = {"layer": "2", "seed": 3, "beta": 5.0, "lr_schedule": "constant"}
    whole = IBA(steps=10, **settings).fit(model, [torch.randn(60, 3, 8, 8)])
    part = IBA(steps=8, **settings)
    part.load_state_dict(whole.state_dict())
    end, earlier = (one.report(model, images, target).capacity for one in (whole, part))
    expected = (end - earlier).abs().sum((1, 2)) / end.sum((1, 2))
    found = whole.explain(model, images, target)
    torch.testing.assert_close(found.convergence, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(whole.report(model, images, target).convergence, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.maps, whole.attribute(model, images, target), rtol=0, atol=0)
    still = IBA(steps=10, lr=1e-6, **settings)
    still.load_state_dict(whole.state_dict())
    assert (still.explain(model, images, target).convergence < 1e-4).all()


def test_several_layers_report_the_one_that_moves_most(model):
    images, target = torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    several = MultiLayerIBA(layers=["0", "2"], steps=5, beta=3.0).fit(model, [torch.randn(60, 3, 8, 8)])
    apart = torch.stack([one.explain(model, images, target).convergence for one in several.members])
    torch.testing.assert_close(several.explain(model, images, target).convergence, apart.amax(0), rtol=1e-4, atol=1e-7)


def test_methods_declare_unit_layers_and_need_of_the_true_score():
    class Weighed(Sensitivity):
        unit = "kilograms"

    several = MultiLayerIBA(["0", "2"], objective="squared_error")
    assert [one.layer for one in several.members] == several.layers == ["0", "2"]
    alone = IBA("2", objective="squared_error")
    assert alone.members == (alone,) and alone.layers == ["2"] and alone.needs_true_score and several.needs_true_score
    intersection = MultiLayerIBA(["0", "2"], combine="intersection")
    methods = [IBA("2"), InverseIBA("2"), MultiLayerIBA(["0", "2"]), intersection, GradCAM("2"), RandomMap(), Weighed()]
    assert [one.total_unit for one in methods] == ["bits"] * 3 + ["sum"] * 4
    assert not any(one.needs_true_score for one in methods)
    assert [one.unit for one in methods[2:4]] == ["bits per pixel", "1 where all layers agree, else 0"]
    assert GradCAM("2").layers == ("2",) and not layer_learners(GradCAM("2"))
    for one in methods[5:]:
        assert not one.layers and not layer_learners(one) and one.num_observed is None and one.state_dict() == {}


@pytest.mark.parametrize("objective", ["binary_cross_entropy", "deviation", "squared_error"])
@pytest.mark.parametrize("has_classes", [True, False])
def test_a_method_refuses_what_it_does_not_explain(objective, has_classes):
    for method in (IBA("2", objective=objective), MultiLayerIBA(["0", "2"], objective=objective)):
        if has_classes == (objective == "binary_cross_entropy"):
            method.check_target(has_classes)
        else:
            explained = "a score, not classes" if has_classes else "classes, not a score: give the attributor objective"
            with pytest.raises(ValueError, match=f"explains {explained}"):
                method.check_target(has_classes)
        if not has_classes and objective == "squared_error":
            with pytest.raises(ValueError, match="squared_error explains the true score, and these images have no la"):
                method.check_target(False, has_labels=False)
    Sensitivity().check_target(has_classes, has_labels=False)


def test_a_custom_method_that_names_its_layers_has_them_checked(model):
    class AtLayer(Sensitivity):
        layers = ("0", "4")

    AtLayer().check(model)
    with pytest.raises(LayerError, match=r"layer='4' gives shape \(2, 3\).*layers with a feature map: 2, 1, 0"):
        AtLayer().check(model, torch.randn(2, 3, 8, 8))
    with pytest.raises(LayerError, match="layer='5' is not a module"):
        MultiLayerIBA(["0", "5"]).check(model)


def test_a_custom_method_with_members_learns_what_they_learn(model):
    class Twice(LayeredAttributor, Sensitivity):
        def __init__(self):
            super().__init__()
            self._members = [IBA("0", statistics_per="channel"), IBA("2")]

        @property
        def members(self):
            return self._members

    batches = [torch.randn(60, 3, 8, 8)]
    fitted, other, observer = Twice().fit(model, batches), Twice(), Twice()
    other.load_state_dict(fitted.state_dict())
    assert fitted.num_observed == other.num_observed == 60 and observer.num_observed == 0
    with torch.no_grad(), frozen(model), observer.observing(model):
        model(batches[0])
    for one, two, three in zip(fitted.members, other.members, observer.members, strict=True):
        alone = IBA(one.layer, statistics_per=one.statistics.per).fit(model, batches).statistics
        for found in (one, two, three):
            assert found.statistics.per == alone.per
            torch.testing.assert_close(found.statistics.std, alone.std)
