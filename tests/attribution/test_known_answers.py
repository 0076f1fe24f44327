"""Cases whose explanation can be worked out by hand."""

import math

import pytest
import torch
from tiny_models import EitherCue, OneCell
from torch import nn

from lightning_chex.attribution import IBA, InverseIBA, MultiLayerIBA
from lightning_chex.attribution.bottleneck.mask import Bottleneck

FIRST, SECOND = (slice(1, 5), slice(1, 5)), (slice(11, 15), slice(11, 15))


@pytest.mark.parametrize(("weight", "beta"), [(1.0, 1.0), (0.5, 8.0), (3.0, 20.0)])
def test_the_mask_of_a_linear_model_is_the_one_worked_out_by_hand(weight, beta):
    # One of N = 16 cells has weight w. For an image at the mean, r = 0, and with s = 1 - lambda, v = s^2:
    #   beta / N * (v - log v - 1) / 2 + E[(w s sigma eps)^2],  minimal at  v = 1 / (1 + 2 N w^2 sigma^2 / beta).
    # Every other cell only pays for information: lambda = 0.
    model = OneCell(weight, row=2, column=1)
    iba = IBA(
        layer="features", beta=beta, objective="deviation", blur_sigma=0, steps=600, lr=0.05, noise_samples=512,
        initial_alpha=1.0,
    )  # fmt: skip
    stream = torch.randn(400, 1, 4, 4)
    iba.fit(model, [stream])
    image = iba.statistics.mean[None]
    sigma = float(iba.statistics.std[0, 2, 1])
    v = 1 / (1 + 2 * 16 * weight**2 * sigma**2 / beta)
    found = iba.report(model, image)
    lam = found.lambda_[0, 0]
    assert float(lam[2, 1]) == pytest.approx(1 - math.sqrt(v), abs=0.02)
    rest = lam.flatten()[torch.arange(16) != 9]
    assert rest.max() < 0.05  # the information is flat at 0: what is left after 600 steps
    bits = (v - math.log(v) - 1) / 2 / math.log(2)
    assert float(found.capacity[0, 2, 1]) == pytest.approx(bits, rel=0.06)


@pytest.fixture(scope="module")
def two_cues():
    """A network with two redundant cues, noise it was seen on, and images that show both, the first a bit stronger."""
    torch.manual_seed(0)
    images = torch.randn(4, 1, 16, 16) * 0.1
    images[:, :, FIRST[0], FIRST[1]] += 1.1
    images[:, :, SECOND[0], SECOND[1]] += 1.0
    return EitherCue(FIRST, SECOND), torch.randn(200, 1, 16, 16) * 0.5, images


def shares(maps):
    """Share of all bits that lies in each cue, and the mean over images."""
    total = maps.sum((1, 2))
    return [float((maps[:, rows, columns].sum((1, 2)) / total).mean()) for rows, columns in (FIRST, SECOND)]


def test_of_two_redundant_cues_iba_keeps_one_and_inverse_iba_marks_both(two_cues):
    model, stream, images = two_cues
    target = torch.zeros(4, dtype=torch.long)
    settings = {"layer": "features", "blur_sigma": 0.5, "steps": 60, "lr": 0.3, "noise_samples": 8}
    kept = IBA(beta=2.0, **settings).fit(model, [stream]).attribute(model, images, target)
    deleted = InverseIBA(beta=2.0, **settings).fit(model, [stream]).attribute(model, images, target)
    first, second = shares(kept)
    assert first > 5 * second  # one cue is sufficient: the other is given up
    first, second = shares(deleted)
    assert min(first, second) > 0.5 * max(first, second)  # to leave no evidence, both have to go
    assert first + second > 0.6


def test_the_inverse_exchanges_the_roles_of_signal_and_noise():
    features, noise = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 4, 4)
    statistics = IBA(layer="").statistics
    statistics.update(torch.randn(60, 3, 4, 4))
    bottleneck = Bottleneck(features, statistics, 1.0, 0.3, 1.0)
    lam, complement = bottleneck.mask()
    preserved = bottleneck.mix(noise, IBA("").noise_share(lam, complement))
    deleted = bottleneck.mix(noise, InverseIBA("").noise_share(lam, complement))
    each = noise[:, None]
    torch.testing.assert_close(preserved, (lam * features + complement * each).flatten(0, 1))
    torch.testing.assert_close(deleted, (lam * each + complement * features).flatten(0, 1))
    torch.testing.assert_close(preserved + deleted, (features + each).flatten(0, 1))


@pytest.mark.parametrize(("alpha", "is_signal"), [(60.0, True), (-60.0, False)])
def test_at_the_ends_of_lambda_only_signal_or_only_noise_is_left(alpha, is_signal):
    features, noise = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 4, 4)
    statistics = IBA(layer="").statistics
    statistics.update(torch.randn(60, 3, 4, 4))
    bottleneck = Bottleneck(features, statistics, 1.0, alpha, 1.0)
    _, complement = bottleneck.mask()
    mixed = bottleneck.mix(noise, complement)
    expected = features.repeat(5, 1, 1, 1) if is_signal else noise.repeat_interleave(2, 0)
    torch.testing.assert_close(mixed, expected)
    nats = bottleneck.capacity()
    if is_signal:
        assert (nats > 55).all()
    else:
        assert (nats < 1e-20).all()


class WithMoreClasses(nn.Module):
    """A network to whose outputs others are added, which stand far below 0."""

    def __init__(self, network, more):
        super().__init__()
        self.network, self.more = network, more

    def forward(self, x):
        output = self.network(x)
        return torch.cat([output, output.detach().mean() * 0 - 20 + torch.zeros(len(x), self.more)], 1)


@pytest.mark.parametrize("game", [IBA, InverseIBA])
def test_beta_does_not_depend_on_the_number_of_outputs(game):
    torch.manual_seed(0)
    head = nn.Linear(24, 2)
    head.weight.data *= 20
    network = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), head)
    images, target, population = torch.randn(3, 1, 12, 12), torch.tensor([0, 1, 1]), [torch.randn(60, 1, 12, 12)]
    wide = WithMoreClasses(network, 14)

    def bits(model, layer, objective, beta):
        iba = game(layer, beta, objective=objective, seed=1).fit(model, population)
        return iba.attribute(model, images, target)

    one = bits(network, "1", "binary_cross_entropy", 0.3)
    torch.testing.assert_close(bits(wide, "network.1", "binary_cross_entropy", 0.3), one, rtol=1e-4, atol=1e-7)
    # the authors' mean over the outputs gives the explained class 1 / K: with 16 for 2 outputs, an eighth of the weight
    mean = bits(wide, "network.1", "one_hot_binary_cross_entropy", 0.3)
    assert mean.sum() < 0.3 * bits(network, "1", "one_hot_binary_cross_entropy", 0.3).sum()
    eightfold = bits(network, "1", "one_hot_binary_cross_entropy", 8 * 0.3)
    torch.testing.assert_close(mean, eightfold, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("game", [IBA, InverseIBA])
def test_beta_is_chosen_by_the_kind_of_objective_where_none_is_given(game):
    assert game().beta == game(objective="softmax_cross_entropy").beta == game.default_beta["class"]
    assert game(objective="deviation").beta == game(objective="maximize_score").beta == game.default_beta["score"]
    assert game(beta=0.0).beta == 0.0
    assert [member.beta for member in MultiLayerIBA().members] == 3 * [IBA().beta]
    assert [member.beta for member in MultiLayerIBA(beta=[1, 2, 3]).members] == [1, 2, 3]


def test_noise_is_drawn_in_pairs_or_each_alone():
    features = torch.randn(1, 2, 4, 4)
    statistics = IBA().statistics
    statistics.update(torch.randn(60, 2, 4, 4))
    bottleneck = Bottleneck(features, statistics, 1.0, 5.0, 1.0)

    def noise(antithetic):
        return bottleneck.draw_noise(4, torch.Generator().manual_seed(3), antithetic)

    torch.testing.assert_close(noise(True)[:2] + noise(True)[2:], 2 * bottleneck.mu.expand(2, -1, -1, -1))
    torch.testing.assert_close(noise(False)[:2], noise(True)[:2])
    assert not torch.allclose(noise(False)[:2] + noise(False)[2:], 2 * bottleneck.mu.expand(2, -1, -1, -1), atol=0.1)


@pytest.mark.parametrize("game", [IBA, InverseIBA])
def test_deviation_is_zero_while_everything_is_kept(game):
    model = OneCell(2.0, 1, 1)
    attributor = game(layer="features", objective="deviation", steps=1, initial_alpha=16.0 if game is IBA else -16.0)
    attributor.fit(model, [torch.randn(60, 1, 4, 4)])
    assert (attributor.report(model, torch.randn(3, 1, 4, 4)).objective[:, 0] < 1e-10).all()


def test_maximize_score_keeps_the_regions_that_raise_the_score():
    # two cells pull the score, one up and one down: keeping the score high keeps the first and lets the second go
    class Balance(OneCell):
        def forward(self, x):
            f = self.features(x)
            return 3 + 2 * f[:, 0, 0, 0] - 2 * f[:, 0, 3, 3]

    model = Balance(1.0, 0, 0)
    iba = IBA(
        layer="features", beta=20.0, objective="maximize_score", blur_sigma=0, steps=150, lr=0.2, noise_samples=16
    )
    iba.fit(model, [torch.randn(200, 1, 4, 4)])
    lam = iba.report(model, torch.full((1, 1, 4, 4), 1.5)).lambda_[0, 0]
    assert lam[0, 0] > 0.5
    assert lam[3, 3] < 0.1
