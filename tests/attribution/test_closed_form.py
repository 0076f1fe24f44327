"""Closed-form steps: against the optimum found by brute force, and the default optimisation run long."""

import pytest
import torch
from scipy.stats import spearmanr
from test_bottleneck import conv_blur
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from lightning_chex.attribution import IBA, FeatureStatistics, InputIBA, InverseIBA, SharedIBA
from lightning_chex.attribution.bottleneck.closed_form import ClosedForm
from lightning_chex.attribution.bottleneck.mask import Bottleneck


def learnt(features):
    statistics = FeatureStatistics("neuron")
    statistics.update(features)
    return statistics


def bottleneck(blur_sigma):
    torch.manual_seed(0)
    features = torch.randn(40, 3, 6, 7, dtype=torch.float64) * torch.linspace(0.5, 2, 7, dtype=torch.float64)
    features[:, 1, :3] = 0  # neurons that never vary
    return Bottleneck(features[:2] * 1.5, learnt(features), blur_sigma, 0.0, 1.0)


def nats(lambda_, one):
    """KL divergence of the bottleneck's output from noise, by torch.distributions, of the neurons that vary."""
    mixed = Normal(lambda_ * one.normalized, (1 - lambda_).clamp(min=1e-9))
    return kl_divergence(mixed, Normal(torch.zeros_like(lambda_), torch.ones_like(lambda_))) * one.active


@pytest.mark.parametrize("blur_sigma", [0.0, 1.0])
def test_repeated_steps_reach_the_minimum_for_a_linear_objective(blur_sigma):
    one, weight = bottleneck(blur_sigma), 0.01
    slope = torch.randn(one.features.shape, dtype=torch.float64) * 0.05 * one.active

    def total(alpha):
        lambda_ = conv_blur(torch.sigmoid(alpha)) if blur_sigma else torch.sigmoid(alpha)
        return weight * nats(lambda_, one).sum() + (slope * lambda_).sum()

    move = ClosedForm(one, new_share=1.0)
    for _ in range(1 if not blur_sigma else 60):
        move.step(weight, *one.mask(), slope)
    alpha = torch.zeros_like(one.alpha).requires_grad_()
    solver = torch.optim.LBFGS(
        [alpha], max_iter=800, history_size=50, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        solver.zero_grad()
        loss = total(alpha)
        loss.backward()
        return loss

    solver.step(closure)
    least, reached = total(alpha).item(), total(one.alpha).item()
    assert least < -0.1
    assert reached == pytest.approx(least, rel=0.02 if blur_sigma else 1e-4)
    # and the minimum is a fixed point
    one.alpha.copy_(alpha.detach().clamp(-16, 16))
    move.step(weight, *one.mask(), slope)
    assert total(one.alpha).item() == pytest.approx(least, rel=1e-4)


def test_without_a_blur_one_step_makes_price_and_worth_equal():
    one, weight = bottleneck(0.0), 0.01
    slope = -torch.rand(one.features.shape, dtype=torch.float64) * 0.05 * one.active
    ClosedForm(one).step(weight, *one.mask(), slope)
    lambda_ = torch.sigmoid(one.alpha).requires_grad_()
    nats(lambda_, one).sum().backward()
    kept = (one.active > 0).expand_as(lambda_)
    torch.testing.assert_close(weight * lambda_.grad[kept], -slope[kept], rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def explained():
    """A classifier of where a bright square lies, batches to fit on, and images to explain."""
    torch.manual_seed(0)

    def squares(count):
        images, labels = torch.randn(count, 1, 16, 16) * 0.3, torch.randint(0, 4, (count,))
        for image, label in zip(images, labels.tolist(), strict=True):
            y, x = 8 * (label // 2), 8 * (label % 2)
            image[0, y + 2 : y + 6, x + 2 : x + 6] += 1.5
        return images, labels

    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 4),
    )  # fmt: skip
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        images, labels = squares(32)
        adam.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        adam.step()
    return model.eval(), squares(100)[0].split(50), *squares(8)


def test_few_steps_come_nearer_to_a_long_default_optimisation_than_as_many_of_adam(explained):
    model, batches, images, target = explained
    long = IBA("3", steps=150, noise_samples=20).fit(model, batches)
    short = IBA("3", steps=8, noise_samples=4, initial_alpha=0.0, update="closed_form")
    adam = IBA("3", steps=8, noise_samples=4, initial_alpha=0.0)
    short.statistics = adam.statistics = long.statistics
    wanted = long.attribute(model, images, target)

    def agreement(maps):
        return sum(spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps, wanted, strict=True)) / 8

    found = short.attribute(model, images, target)
    assert agreement(found) > max(0.94, agreement(adam.attribute(model, images, target)))
    assert float(found.sum() / wanted.sum()) == pytest.approx(1, abs=0.1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"update='newton' is unknown; choose adam or closed_form"):
        IBA(update="newton")
    with pytest.raises(ValueError, match=r"beta=0 must be greater than 0 with update='closed_form'"):
        IBA(update="closed_form", beta=0)
    for method in (InverseIBA, SharedIBA, InputIBA):
        with pytest.raises(ValueError, match=rf"update='closed_form' is not offered by {method.__name__}; choose adam"):
            method(update="closed_form")
