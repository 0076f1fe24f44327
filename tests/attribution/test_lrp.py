import pytest
import timm
import torch
import torchvision
from timm.layers import Conv2dSame, ScaledStdConv2d, StdConv2d
from tiny_models import Skip
from torch import nn
from unchanged import unchanged

from lightning_chex.attribution import LRP
from lightning_chex.attribution.gradient.lrp import proportional_functions
from lightning_chex.attribution.gradient.lrp_canonizers import PoolBeforePointwise, followed

TOLERANCE = 1e-3
"""Relevance lost or made on the way, as a share of what set out."""


def settled(model):
    """Give batch normalisations statistics and scales of a trained network's kind, some scales negative."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.weight.shape
            module.weight.data = torch.randn(shape, generator=generator) * 0.3 + 0.8
            module.bias.data = torch.randn(shape, generator=generator) * 0.2
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 64, 64, generator=generator))
    return model


class Small(nn.Module):
    """Functional activations, a residual sum and a functional mean."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv1(x)))
        x = x + torch.relu(self.conv2(x))
        return self.head(x.mean((2, 3)))


NETWORKS = {
    "small": (Small, "head"),
    "timm_densenet121": (lambda: timm.create_model("densenet121", num_classes=3), "classifier"),
    "torchvision_densenet121": (lambda: torchvision.models.densenet121(num_classes=3), "classifier"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    make, head = NETWORKS[request.param]
    torch.manual_seed(0)
    model = settled(make())
    model.get_submodule(head).bias.data = torch.tensor([0.5, -2.0, 9.0])
    return model, model.get_submodule(head).bias.detach().clone()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_relevance_is_conserved_and_nothing_is_left_on_the_model(network, images):
    model, bias = network
    target = torch.tensor([[0, 1, 2], [2, 1, 0]])
    with unchanged(model):
        maps = LRP(sign="signed", batch_size=6).attribute(model, images, target)
    with torch.no_grad():
        logits = model.eval()(images).gather(1, target)
    model.train()
    sent, arrived = logits - bias[target], maps.sum((2, 3))
    assert (sent.abs() > 0.01).all()
    torch.testing.assert_close(arrived, sent, rtol=TOLERANCE, atol=0)


def test_the_rules_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        model[0].bias.fill_(0.5)
        model[2].weight.copy_(torch.tensor([[[[1.0, 2.0], [-1.0, 0.5]], [[3.0, -4.0], [2.0, 1.0]]]]))
        model[2].bias.fill_(0.25)
        model[5].weight.fill_(2.0)
        model[5].bias.fill_(7.0)
    image = torch.tensor([[[[1.0, 2.0], [0.0, -1.0]]]])
    hidden = [torch.tensor([[1.5, 2.5], [0.5, 0.0]]), torch.tensor([[0.0, 0.0], [0.5, 1.5]])]
    positive = [hidden[0] * torch.tensor([[1.0, 2], [0, 0.5]]), hidden[1] * torch.tensor([[3.0, 0], [2, 1]])]
    feature = sum((hidden[i] * model[2].weight[0, i]).sum() for i in (0, 1)) + 0.25
    # epsilon: 2 feature of 2 feature + 7; z+: in proportion to w+ h, bias aside; flat: a 1 x 1 kernel keeps the place
    expected = 2 * feature * (positive[0] + positive[1]) / (positive[0].sum() + positive[1].sum())
    found = LRP(sign="signed").attribute(model, image)
    torch.testing.assert_close(found[0], expected.detach(), rtol=1e-4, atol=1e-5)


def test_signs_and_targets(images):
    torch.manual_seed(0)
    model = settled(Small())
    signed = LRP("signed").attribute(model, images, torch.tensor([[0, 1], [2, 0]]))
    assert signed.shape == (2, 2, 64, 64) and signed.dtype == torch.float32 and (signed < 0).any()
    rows, values = torch.tensor([1, 0]), torch.tensor([2, 1])
    positive = LRP("positive", batch_size=1).attribute(model, images, values, rows)
    torch.testing.assert_close(positive, signed[[1, 0], [0, 1]].clamp(min=0), rtol=1e-4, atol=1e-7)
    absolute = LRP("absolute").attribute(model, images, values, rows)
    torch.testing.assert_close(absolute, signed[[1, 0], [0, 1]].abs(), rtol=1e-4, atol=1e-7)


def test_only_norms_that_alone_read_a_convolution_are_merged(images):
    model = timm.create_model("densenet121", num_classes=3).eval()
    names = {module: name for name, module in model.named_modules()}
    pairs = {(names[linear], names[norm]) for linear, norm in followed(model, images[:1])}
    layers = [name.rsplit(".", 1)[0] for name in names.values() if name.endswith("conv2")]
    expected = {(f"{layer}.conv1", f"{layer}.norm2") for layer in layers}
    assert len(layers) == 58
    assert pairs == expected | {("features.conv0", "features.norm0")}


def test_a_convolution_that_feeds_another_too_is_not_merged(images):
    class Branches(Small):
        def forward(self, x):
            x = self.conv1(x)
            return self.head(torch.cat([self.norm(x), x], 1)[:, :8].mean((2, 3)))

    assert followed(Branches().eval(), images[:1]) == []
    small = Small().eval()
    assert followed(small, images[:1]) == [(small.conv1, small.norm)]


def test_the_canonical_form_computes_the_same(images):
    torch.manual_seed(0)
    model = settled(timm.create_model("densenet121", num_classes=3)).eval()
    lrp = LRP()
    with torch.no_grad():
        before = model(images)
        with lrp._rules(model, images[:1]):
            torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-4)
            assert (model.features.norm0.weight == 1).all()
            changed = [m for m in model.modules() if "forward" in m.__dict__]
            assert changed == [model.features.transition1, model.features.transition2, model.features.transition3]
        assert torch.equal(model(images), before)


def test_a_padded_pool_stays_where_it_is():
    assert PoolBeforePointwise._attributes("", nn.Sequential(nn.Conv2d(1, 1, 1), nn.AvgPool2d(2, padding=1))) is None
    assert PoolBeforePointwise._attributes("", nn.Sequential(nn.Conv2d(1, 1, 3), nn.AvgPool2d(2))) is None


def test_sums_and_averages_share_in_proportion():
    x = torch.tensor([[[[1.0, 3.0], [0.0, 4.0]]]], requires_grad=True)
    with proportional_functions():
        mean = x.mean((2, 3))
        total = x + 3 * x.detach().requires_grad_()
    (share,) = torch.autograd.grad(mean, x, torch.tensor([[16.0]]))
    torch.testing.assert_close(share, torch.tensor([[[[2.0, 6.0], [0.0, 8.0]]]]))
    (share,) = torch.autograd.grad(total, x, torch.full((1, 1, 2, 2), 4.0))
    torch.testing.assert_close(share, torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]]))


def test_a_module_without_a_rule_is_named_before_anything_is_changed(images):
    with pytest.raises(ValueError, match="no rule for 1, a GroupNorm"):
        LRP().check(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)))
    model = Skip()
    with unchanged(model), pytest.raises(ValueError, match="the model itself, a Skip"):
        LRP().attribute(model, images[:, :2], torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="epsilon=0"):
        LRP(epsilon=0)


def test_the_model_comes_back_after_an_exception(images):
    torch.manual_seed(0)
    model = settled(Small())
    with unchanged(model), pytest.raises(ValueError, match="outputs 0 to 2"):
        LRP().attribute(model, images, torch.tensor([0, 3]))


@pytest.mark.parametrize("kind", [StdConv2d, ScaledStdConv2d])
def test_a_convolution_that_normalises_its_weight_is_refused(images, kind):
    model = nn.Sequential(kind(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with unchanged(model), pytest.raises(ValueError, match="no rule for 0, a .*StdConv2d: .* not proportional"):
        LRP().attribute(model, images, torch.tensor([0, 1]))


def test_a_convolution_of_ones_own_that_is_linear_in_its_weight_is_explained(images):
    torch.manual_seed(0)
    rest = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    plain, own = nn.Conv2d(3, 4, 3, padding=1), Conv2dSame(3, 4, 3)
    own.load_state_dict(plain.state_dict())
    expected = LRP("signed").attribute(nn.Sequential(plain, *rest), images, torch.tensor([0, 1]))
    found = LRP("signed").attribute(nn.Sequential(own, *rest), images, torch.tensor([0, 1]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
