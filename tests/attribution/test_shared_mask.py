"""Shared IBA and Input IBA: one lambda per place, of several layers or of the pixels."""

import math

import pytest
import torch
from tiny_models import Dynamic, OneCell, Static
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F
from unchanged import unchanged

from lightning_chex.attribution import IBA, InputIBA, LayerError, ObservedRows, SharedIBA, bits_per_pixel, frozen
from lightning_chex.attribution.blur import blur_matrix

ALONG = {"steps": 300, "lr": 0.3, "noise_samples": 64, "blur_sigma": 0.0, "objective": "deviation"}
"""An optimisation that arrives."""


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def plain_shared_iba(model, stream, image, target, beta, steps=15, lr=2.0):
    """One image, layers 0 and 2 of `network`, everything by autograd and torch.distributions."""
    with torch.no_grad():
        seen = [model[0](stream), model[:3](stream)]
        clean = [model[0](image[None]), model[:3](image[None])]
    mu = [one.mean(0) for one in seen]
    sigma = [one.std(0) for one in seen]
    alpha = torch.full((1, 1, 16, 16), 2.0, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=lr, betas=(0.5, 0.9))
    generator = torch.Generator().manual_seed(0)
    blur = blur_matrix(16)

    def information(lambda_):
        bits = []
        for layer, place in enumerate((lambda_, F.avg_pool2d(lambda_, 2))):
            r = (clean[layer] - mu[layer]) / sigma[layer].clamp(min=0.01)
            passed = Normal(place * r, (1 - place).expand_as(r))
            bits.append(kl_divergence(passed, Normal(torch.zeros_like(r), torch.ones_like(r))))
        return bits

    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * (1 - step / steps)
        adam.zero_grad()
        lambda_ = blur @ torch.sigmoid(alpha) @ blur.T
        draws = [torch.randn(1, *one.shape, generator=generator, dtype=torch.float64) for one in mu]
        loss = sum(beta / 2 * own.mean() for own in information(lambda_))
        for sign in (1, -1):
            noise = [m + s * sign * d for m, s, d in zip(mu, sigma, draws, strict=True)]
            first = lambda_ * clean[0] + (1 - lambda_) * noise[0]
            second = model[1:3](first)
            coarse = F.avg_pool2d(lambda_, 2)
            output = model[3:](coarse * second + (1 - coarse) * noise[1])
            loss = loss + F.softplus(-output[0, target]) / 2
        loss.backward()
        adam.step()
    fine, coarse = information((blur @ torch.sigmoid(alpha) @ blur.T).detach())
    return fine.sum((0, 1)) / math.log(2), coarse.sum((0, 1)) / math.log(2)


def test_shared_iba_is_a_plain_loop_over_both_layers():
    model = network().double()
    stream = torch.randn(60, 1, 16, 16, dtype=torch.float64)
    images, target = torch.randn(2, 1, 16, 16, dtype=torch.float64), torch.tensor([0, 2])
    method = SharedIBA(["0", "2"], beta=4.0).fit(model, [stream])
    found = method.explain(model, images, target)
    for i in range(2):
        fine, coarse = plain_shared_iba(model, stream, images[i], target[i], 4.0)
        total = fine + bits_per_pixel(coarse[None], (16, 16))[0]
        torch.testing.assert_close(found.maps[i].double(), total, rtol=2e-3, atol=1e-5)
        assert float(found.maps[i].sum()) == pytest.approx(float(fine.sum() + coarse.sum()), rel=0.02)


def least(cost):
    """The lambda in (0, 1) of the least cost, to four digits."""
    places = torch.linspace(1e-4, 1 - 1e-4, 9999, dtype=torch.float64)
    return float(places[cost(places).argmin()])


def nats(lambda_, r):
    v = (1 - lambda_) ** 2
    return 0.5 * ((lambda_ * r) ** 2 + v - v.log() - 1)


@pytest.fixture(scope="module")
def line():
    """A score that is 0.2 times one pixel; its mean and deviation, an image, and what the pixel is worth in it."""
    stream = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(2)) + 0.3
    image = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    image[0, 0, 2, 5] = 2.5
    mu, sigma = float(stream[:, 0, 2, 5].mean()), float(stream[:, 0, 2, 5].std())
    return stream, image, mu, sigma, 2.5 - mu


def test_input_iba_finds_the_only_pixel_and_its_bits(line):
    stream, image, mu, sigma, away = line
    method = InputIBA("features", beta=5.0, **ALONG).fit(OneCell(0.2, 2, 5), stream.split(50))
    found = method.attribute(OneCell(0.2, 2, 5), image)[0]
    # E (0.2 (Z - x))^2 = 0.04 (1 - lambda)^2 ((x - mu)^2 + sigma^2)
    best = least(lambda x: 5 / 64 * nats(x, away / sigma) + 0.04 * (1 - x) ** 2 * (away**2 + sigma**2))
    bits = float(nats(torch.tensor(best), away / sigma)) / math.log(2)
    assert bits > 0.3 and float(found[2, 5]) == pytest.approx(bits, rel=0.1)
    assert float(found[2, 5] / found.sum()) > 0.99


class Twice(OneCell):
    """The same score, behind two layers that change nothing."""

    def __init__(self, weight, row, column):
        super().__init__(weight, row, column)
        self.again = nn.Identity()

    def forward(self, x):
        return self.weight * self.again(self.features(x))[:, 0, self.row, self.column]


def test_shared_iba_finds_the_only_cell_and_its_bits_at_both_layers(line):
    stream, image, mu, sigma, away = line
    method = SharedIBA(["features", "again"], beta=5.0, **ALONG).fit(Twice(0.2, 2, 5), [stream])
    found = method.attribute(Twice(0.2, 2, 5), image)[0]

    def cost(x):
        # Z2 - x = lambda^2 x + lambda (1 - lambda) e1 + (1 - lambda) e2 - x
        off = (1 - x**2) ** 2 * away**2 + sigma**2 * (1 - x) ** 2 * (1 + x**2)
        return 5 / 64 * nats(x, away / sigma) + 0.04 * off

    bits = 2 * float(nats(torch.tensor(least(cost)), away / sigma)) / math.log(2)
    assert bits > 0.3 and float(found[2, 5]) == pytest.approx(bits, rel=0.1)
    assert float(found[2, 5] / found.sum()) > 0.99


class Region(nn.Module):
    """Logit 0 reads a patch of 4 x 4 pixels through two layers of different grids, and nothing else."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(1, 4, 1)
        self.coarse = nn.AvgPool2d(2)

    def forward(self, x):
        patch = self.coarse(self.fine(x))[:, :, 1:3, 4:6].mean((1, 2, 3))
        return torch.stack([8 * patch - 4, torch.zeros_like(patch)], 1)


@pytest.mark.parametrize("method", [SharedIBA(["fine", "coarse"]), InputIBA("fine")], ids=["SharedIBA", "InputIBA"])
def test_the_only_informative_region_is_marked(method):
    torch.manual_seed(0)
    model, stream = Region(), torch.randn(60, 1, 16, 16)
    with torch.no_grad():
        model.fine.weight.fill_(1.0)
    image = 0.2 * torch.randn(1, 1, 16, 16)
    image[:, :, 2:6, 8:12] += 2
    saliency = method.fit(model, [stream]).attribute(model, image, torch.tensor([0]))[0]
    inside = saliency[2:6, 8:12].sum() / saliency.sum()
    around = saliency[1:7, 7:13].sum() / saliency.sum()  # the blurred mask reaches over the edge
    assert inside > 0.6 and around > 0.9  # 16 of 256 pixels


@pytest.mark.parametrize("model", [Static, Dynamic])
def test_traced_and_replayed_networks_give_the_same(model):
    torch.manual_seed(0)
    one, stream, images = model(), torch.randn(60, 1, 16, 16), torch.randn(2, 1, 16, 16)
    if model is Dynamic:
        static = Static()
        static.load_state_dict(one.state_dict())
        target = torch.tensor([0, 2])
        replayed = SharedIBA(["stem", "body"], steps=3).fit(one, [stream]).attribute(one, images, target)
        traced = SharedIBA(["stem", "body"], steps=3).fit(static, [stream]).attribute(static, images, target)
        torch.testing.assert_close(replayed, traced, rtol=1e-3, atol=1e-6)
    else:
        with pytest.raises(LayerError, match=r"order of the forward pass"):
            SharedIBA(["body", "stem"], steps=3).fit(one, [stream]).attribute(one, images, torch.tensor([0, 2]))


METHODS = {"SharedIBA": lambda: SharedIBA(["0", "2"], steps=4), "InputIBA": lambda: InputIBA("2", steps=4)}
by_name = pytest.mark.parametrize("build", METHODS.values(), ids=METHODS)


@by_name
def test_no_map_depends_on_its_batch_and_nothing_is_left_behind(build):
    model, stream = network().train(), torch.randn(60, 1, 16, 16)
    images, target = torch.randn(5, 1, 16, 16), torch.tensor([[0, 1], [2, 1], [0, 0], [1, 2], [2, 2]])
    with unchanged(model):
        method = build().fit(model, [stream])
        together = method.attribute(model, images, target)
    method.batch_size = 1
    for i in range(5):
        alone = method.attribute(model, images[i : i + 1], target[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, rtol=2e-3, atol=1e-5)
    assert together.shape == (5, 2, 16, 16) and (together >= 0).all() and together.std() > 0
    assert method.attribute(model, images, torch.empty(0).long(), torch.empty(0).long()).shape == (0, 16, 16)
    assert torch.equal(method.explain(model, images, target).convergence.isfinite(), torch.ones(5, 2).bool())


@by_name
def test_what_was_learnt_is_the_same_by_fit_by_watching_and_from_a_state(build):
    model, stream, images = network(), torch.randn(60, 1, 16, 16), torch.randn(2, 1, 16, 16)
    target = torch.tensor([0, 1])
    fitted, watching, loaded = build().fit(model, stream.split(25)), build(), build()
    counting = ObservedRows()
    with frozen(model), counting.active(), watching.observing(model), torch.inference_mode():
        model(stream)
        counting.rows = False
        model(images)
    loaded.load_state_dict(fitted.state_dict())
    assert fitted.num_observed == watching.num_observed == loaded.num_observed == 60
    expected = fitted.attribute(model, images, target)
    assert torch.equal(loaded.attribute(model, images, target), expected)
    torch.testing.assert_close(watching.attribute(model, images, target), expected, rtol=1e-3, atol=1e-5)


def test_input_iba_begins_at_the_map_of_its_layer():
    """With a rate of nearly 0 the mask stays where it began: lambda = 0.88 times the layer's map over its peak."""
    model, stream, images = network(), torch.randn(60, 1, 16, 16), torch.randn(2, 1, 16, 16)
    target, settings = torch.tensor([0, 1]), {"lr": 1e-9, "steps": 2, "blur_sigma": 0.0}
    found = InputIBA("2", **settings).fit(model, [stream]).attribute(model, images, target)
    start = IBA("2", **settings).fit(model, [stream]).attribute(model, images, target)
    share = start / start.amax((1, 2), keepdim=True)
    lambda_ = (torch.sigmoid(torch.tensor(2.0)) * share).clamp(min=0.02)
    expected = nats(lambda_, (images[:, 0] - stream[:, 0].mean(0)) / stream[:, 0].std(0)) / math.log(2)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: SharedIBA(["0"]), "two different layers"),
        (lambda: SharedIBA(["0", "0"]), "two different layers"),
        (lambda: SharedIBA(["0", "2"], beta=[1.0]), "beta="),
        (lambda: InputIBA("2", steps=0), "steps=0"),
        (lambda: InputIBA("2", batch_size=0), "batch_size=0"),
        (lambda: InputIBA("2", beta=-1.0), "beta=-1"),
    ],
)
def test_arguments_that_do_not_fit_are_named(build, told):
    with pytest.raises(ValueError, match=told):
        build()


def test_without_statistics_or_with_those_of_another_size_it_says_so():
    model, images, target = network(), torch.randn(1, 1, 16, 16), torch.tensor([0])
    for build in METHODS.values():
        with pytest.raises(RuntimeError, match="call fit"):
            build().attribute(model, images, target)
        method = build().fit(model, [torch.randn(60, 1, 12, 12)])
        with pytest.raises(ValueError, match="one size"):
            method.attribute(model, images, target)
