"""The files in configs/paper/attributor against a plain loop written from the method's description."""

import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn
from torch.nn import functional as F

from lightning_chex.attribution import Attributor

PAPER = Path(__file__).parents[2] / "configs" / "paper" / "attributor"
SIDE = 32
WEIGHTS = torch.exp(-torch.arange(-2, 3).double().square() / 2)
KERNEL = torch.outer(WEIGHTS, WEIGHTS) / WEIGHTS.sum() ** 2


def method(name):
    parser = ArgumentParser()
    parser.add_argument("--method", type=Attributor)
    return parser.instantiate(
        parser.parse_object({"method": yaml.safe_load((PAPER / f"{name}.yaml").read_text())})
    ).method


class Network(nn.Module):
    """Blocks named as DenseNet-121's, in double precision; the head gives classes, or one score."""

    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(outputs)
        block = [nn.Sequential(nn.Conv2d(c, d, 3, stride=2, padding=1), nn.Tanh()) for c, d in ((3, 4), (4, 6), (6, 8))]
        self.features = nn.Sequential(OrderedDict((f"denseblock{i + 1}", own) for i, own in enumerate(block)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, outputs))
        self.double()
        self.head[2].weight.data *= 30

    def forward(self, images):
        return self.head(self.features(images))


def blur(mask):
    kernel = KERNEL.expand(mask.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(mask, (2, 2, 2, 2), mode="reflect"), kernel, groups=mask.shape[1])


def authors_map(network, block, image, population, loss_of, beta, inverse=False):
    """One image, one mask, ten copies; the map of the tenth forward pass, whose update changes it no more."""
    below, above = network.features[:block], nn.Sequential(network.features[block:], network.head)
    with torch.no_grad():
        stream, features = below(population), below(image)
    mean, std = stream.mean(0), stream.std(0)
    generator = torch.Generator().manual_seed(0)
    alpha = torch.full_like(features, 5.0, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=1.0)
    for _ in range(10):
        lam = blur(alpha.sigmoid())
        variance = (1 - lam) ** 2
        nats = ((lam * (features - mean) / std.clamp(min=0.01)) ** 2 + variance - variance.log() - 1) / 2
        noise = mean + std * torch.randn((10, *features.shape[1:]), generator=generator, dtype=torch.float64)
        z = lam * noise + (1 - lam) * features if inverse else lam * features + (1 - lam) * noise
        loss = loss_of(above(z))
        loss = beta * nats.mean() + (-loss if inverse else loss)
        adam.zero_grad()
        loss.backward()
        adam.step()
    cells = nats.detach().sum(1, keepdim=True) / math.log(2)
    per_pixel = cells * (cells[0].numel() / SIDE**2)
    return F.interpolate(per_pixel, (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(1)
    population = torch.randn(60, 3, SIDE, SIDE, dtype=torch.float64)
    images = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64) * 0.3
    images[0, :, 4:14, 4:14] += 3  # something to be found at one place
    images[1, :, 18:26, 6:16] -= 3
    return population, images


def one_hot(target, outputs):
    wanted = F.one_hot(torch.tensor(target), outputs).double()
    return lambda output: F.binary_cross_entropy_with_logits(output, wanted.expand_as(output))


@pytest.mark.parametrize(("name", "beta"), [("iba", 10), ("inverse_iba", 30)])
def test_a_class_is_explained_as_the_authors_code_does(data, name, beta):
    population, images = data
    network, targets = Network(5), [3, 1]
    maps = method(name).fit(network, [population]).attribute(network, images, torch.tensor(targets))
    for i, target in enumerate(targets):
        expected = authors_map(network, 3, images[i : i + 1], population, one_hot(target, 5), beta, name != "iba")
        torch.testing.assert_close(maps[i].double(), expected, rtol=1e-3, atol=1e-7)


def test_several_layers_are_combined_as_the_authors_code_does(data):
    population, images = data
    network = Network(5)
    attributor = method("multi_layer_iba").fit(network, [population])
    combined = attributor.attribute(network, images, torch.tensor([3, 1]))
    layers = attributor.layer_maps(network, images, torch.tensor([3, 1]))
    for i, target in enumerate([3, 1]):
        one, two, three = (
            authors_map(network, block, images[i : i + 1], population, one_hot(target, 5), 10) for block in (1, 2, 3)
        )
        for found, expected in zip(layers.values(), (one, two, three), strict=True):
            torch.testing.assert_close(found[i].double(), expected, rtol=1e-3, atol=1e-7)
        level = 0.006 * 224 / SIDE  # a map divided by its Euclidean norm falls with the number of pixels
        expected = one * (two / two.norm() >= level) * (three / three.norm() >= level)
        assert 0 < (expected > 0).sum() < SIDE**2
        torch.testing.assert_close(combined[i].double(), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ["regression_mse", "regression_rm", "regression_dv"])
def test_a_score_is_explained_as_the_authors_code_does(data, name):
    population, images = data
    network, truth = Network(1), torch.tensor([2.0, -1.0])
    maps = method(name).fit(network, [population]).attribute(network, images, truth)
    predicted = network(images).detach()
    for i in range(2):
        losses = {
            "regression_mse": lambda output, i=i: (output - truth[i]).square().mean(),
            "regression_rm": lambda output: -output.square().mean(),
            "regression_dv": lambda output, i=i: (output - predicted[i]).square().mean(),
        }
        expected = authors_map(network, 3, images[i : i + 1], population, losses[name], 10)
        torch.testing.assert_close(maps[i].double(), expected, rtol=1e-3, atol=1e-7)


def test_every_file_is_compared():
    compared = {"iba", "inverse_iba", "multi_layer_iba", "regression_mse", "regression_rm", "regression_dv"}
    assert {path.stem for path in PAPER.glob("*.yaml")} == compared
