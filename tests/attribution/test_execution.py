import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_chex.attribution import IBA, InverseIBA, MultiLayerIBA
from lightning_chex.attribution.blur import Blur
from lightning_chex.attribution.network.execution import affine_batch_norm, layout_of, precision


class Network(nn.Module):
    """Convolutions and batch norms; the head may insist on contiguous features, as ``view`` does."""

    def __init__(self, insists: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Linear(12 * 8 * 8, 4)
        self.insists = insists
        for norm in (self.stem[1], self.body[1]):
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
        nn.init.normal_(self.head.weight)

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.head(x.view(len(x), -1) if self.insists else x.flatten(1))


def inputs():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(66, 3, 16, 16, generator=generator)
    return images[:60], images[60:], torch.tensor([0, 1, 2, 3, 1, 0])


@pytest.mark.parametrize("family", [IBA, InverseIBA])
def test_maps_do_not_depend_on_the_layout_of_model_or_images(family):
    stream, images, target = inputs()
    plain = family(layer="stem", blur_sigma=0.8).fit(Network(), [stream]).attribute(Network(), images, target)
    model = Network().to(memory_format=torch.channels_last)
    other = family(layer="stem", blur_sigma=0.8).fit(model, [stream])
    maps = other.attribute(model, images.contiguous(memory_format=torch.channels_last), target)
    torch.testing.assert_close(maps, plain, rtol=1e-4, atol=1e-6)


def test_a_model_that_insists_on_contiguous_features_gives_the_same_maps(capfd):
    stream, images, target = inputs()
    with pytest.raises(RuntimeError, match="view size"):  # it really does insist
        Network(insists=True)(images.contiguous(memory_format=torch.channels_last))
    attributors = [IBA(layer="stem"), MultiLayerIBA(layers=["stem", "body.0"])]
    for attributor in attributors:
        expected = attributor.fit(Network(), [stream]).attribute(Network(), images, target)
        found = attributor.fit(Network(insists=True), [stream]).attribute(Network(insists=True), images, target)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert "Traceback" not in capfd.readouterr().err  # torch.fx would print one of what is caught here


def test_an_error_of_the_model_is_not_taken_for_one_of_the_layout():
    stream, images, _ = inputs()
    model = Network()
    iba = IBA(layer="stem").fit(model, [stream])
    model.head = nn.Linear(7, 4)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        iba.attribute(model, images, torch.zeros(6, dtype=torch.long))


def test_the_channels_last_path_is_the_one_that_runs_on_a_cpu(monkeypatch):
    stream, images, target = inputs()
    seen = []
    monkeypatch.setattr(
        "lightning_chex.attribution.bottleneck.mask.layout_of",
        lambda features: seen.append(layout_of(features)) or seen[-1],
    )
    IBA(layer="stem").fit(Network(), [stream]).attribute(Network(), images, target)
    assert seen == [torch.channels_last]


def test_the_blur_is_the_same_in_both_layouts():
    values = torch.randn(3, 5, 7, 6, dtype=torch.float64)
    blur = Blur(7, 6, 1.3, values)
    last = values.contiguous(memory_format=torch.channels_last)
    assert layout_of(blur(last)) == torch.channels_last
    torch.testing.assert_close(blur(last), blur(values))
    torch.testing.assert_close(blur.adjoint(last), blur.adjoint(values))
    # the adjoint is the transpose: <blur x, y> = <x, adjoint y>
    other = torch.randn_like(values)
    torch.testing.assert_close((blur(values) * other).sum(), (values * blur.adjoint(other)).sum())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("norm, shape", [(nn.BatchNorm2d, (4, 6, 5, 5)), (nn.BatchNorm1d, (4, 6))])
def test_batch_norm_as_multiply_add_equals_pytorchs(norm, shape, affine):
    layer = norm(6, affine=affine).double().eval().requires_grad_(False)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.1, 3)
    if affine:
        layer.weight.normal_()
        layer.bias.normal_()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = layer(x)
    with affine_batch_norm(torch.device("cpu")):
        found = layer(x)
    assert "Addcmul" in type(found.grad_fn).__name__  # it was replaced indeed
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(x)
    (ours,) = torch.autograd.grad((found * weights).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_batch_norms_may_share_running_statistics():
    mean, var, x = torch.randn(6), torch.rand(6) + 0.5, torch.randn(4, 6, 5, 5)
    affine = [(torch.randn(6), torch.randn(6), 1e-5), (torch.randn(6), None, 1e-5), (None, None, 1e-5), (None, None, 1)]
    expected = [F.batch_norm(x, mean, var, weight, bias, eps=eps) for weight, bias, eps in affine]
    with affine_batch_norm(torch.device("cpu")):
        found = [F.batch_norm(x, mean, var, weight, bias, eps=eps) for weight, bias, eps in affine]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(6), nn.BatchNorm2d(6, track_running_stats=False).eval()])
def test_batch_norm_by_batch_statistics_is_left_alone(layer):
    layer.requires_grad_(False)  # frozen weights alone do not make it a fixed map
    x = torch.randn(4, 6, 5, 5)
    expected = F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)
    with affine_batch_norm(torch.device("cpu")):
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("family", [IBA, InverseIBA])
def test_bfloat16_moves_maps_little_and_keeps_masks_in_float32(family):
    stream, images, target = inputs()
    model = Network()
    exact = family(layer="stem", steps=15).fit(model, [stream])
    rounded = family(layer="stem", steps=15, bfloat16=True).fit(model, [stream])
    found, expected = rounded.report(model, images, target), exact.report(model, images, target)
    assert found.lambda_.dtype == found.saliency.dtype == torch.float32
    assert not torch.equal(found.saliency, expected.saliency)
    both = torch.stack([found.saliency.flatten(), expected.saliency.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.99
    assert found.total_bits.sum().item() == pytest.approx(expected.total_bits.sum().item(), rel=0.05)


def test_an_autocast_around_it_stays_in_force():
    stream, images, target = inputs()
    model = Network()
    iba = IBA(layer="stem").fit(model, [stream])
    inside = IBA(layer="stem", bfloat16=True)
    inside.statistics = iba.statistics
    with torch.autocast("cpu", torch.bfloat16):
        ambient = iba.attribute(model, images, target)
    torch.testing.assert_close(ambient, inside.attribute(model, images, target))
    assert precision(torch.device("cpu"), False).__class__.__name__ == "nullcontext"
