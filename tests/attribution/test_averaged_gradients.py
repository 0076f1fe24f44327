"""SmoothGrad and Expected Gradients: averages of gradients over noise and over baselines."""

import pytest
import torch
from tiny_models import OneCell, Static
from torch import nn
from unchanged import unchanged

from lightning_chex.attribution import ExpectedGradients, Gradient, ObservedRows, SmoothGrad, frozen

OTHERS = torch.randn(12, 1, 16, 16, generator=torch.Generator().manual_seed(5))


class Square(nn.Module):
    """f(x) = sum of x^2: its gradient is 2 x."""

    def forward(self, x):
        return x.square().sum((1, 2, 3))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Static()


@pytest.fixture
def images():
    return torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(1))


METHODS = [SmoothGrad(samples=3), ExpectedGradients(4, 6).fit(nn.Identity(), [OTHERS])]
by_name = pytest.mark.parametrize("method", METHODS, ids=[type(method).__name__ for method in METHODS])


@by_name
def test_no_map_depends_on_its_batch_and_nothing_global_is_touched(method, model, images):
    target = torch.tensor([0, 1, 2, 1, 0])
    with unchanged(model):
        together = method.attribute(model, images, target)
    alone = torch.cat([method.attribute(model, images[i : i + 1], target[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-7)
    assert together.shape == (5, 16, 16) and together.std() > 0


@by_name
def test_another_seed_gives_another_map_and_the_same_one_the_same(method, model, images):
    target, former = torch.tensor([0, 1, 2, 1, 0]), method.seed
    first = method.attribute(model, images, target)
    assert torch.equal(first, method.attribute(model, images, target))
    method.seed = former + 1
    try:
        assert not torch.allclose(first, method.attribute(model, images, target))
    finally:
        method.seed = former


def test_smooth_grad_is_a_plain_mean_over_noisy_copies():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    images, target = torch.randn(2, 2, 6, 6), torch.tensor([1, 0])
    found = SmoothGrad(samples=7, noise=0.3, seed=3).attribute(model, images, target)
    for image, k, own in zip(images, target, found, strict=True):
        generator = torch.Generator().manual_seed(3)
        deviation = 0.3 * float(image.max() - image.min())
        gradients = []
        for _ in range(7):
            noisy = (image + deviation * torch.randn(2, 6, 6, generator=generator)).requires_grad_()
            gradients.append(torch.autograd.grad(model(noisy[None])[0, k], noisy)[0])
        torch.testing.assert_close(own, torch.stack(gradients).mean(0).abs().amax(0), rtol=1e-4, atol=1e-7)


def test_smooth_grad_without_noise_is_the_gradient(model, images):
    target = torch.tensor([0, 1, 2, 1, 0])
    plain = Gradient().attribute(model, images, target)
    torch.testing.assert_close(SmoothGrad(samples=2, noise=0.0).attribute(model, images, target), plain)


def test_noise_evens_out_a_gradient_that_alternates():
    """sin has mean slope exp(-(w s)^2 / 2) cos(w x) under Gaussian noise of deviation s."""

    class Wave(nn.Module):
        def forward(self, x):
            return torch.sin(4 * x).sum((1, 2, 3))

    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 0, 0] = 1.0  # the range is 1
    found = SmoothGrad(samples=4000, noise=0.2).attribute(Wave(), image)[0]
    factor = float(torch.exp(torch.tensor(-((4 * 0.2) ** 2) / 2)))
    assert found[4, 4] == pytest.approx(4 * factor, rel=0.05)
    assert found[0, 0] == pytest.approx(4 * factor * abs(float(torch.cos(torch.tensor(4.0)))), rel=0.1)


def test_expected_gradients_of_a_line_are_weight_times_the_distance_from_the_mean_baseline():
    images = torch.randn(3, 1, 16, 16)
    method = ExpectedGradients(baselines=12, samples=24, sign="signed").fit(nn.Identity(), OTHERS.split(5))
    maps = method.attribute(OneCell(-3.0, 2, 5), images)
    expected = torch.zeros(3, 16, 16)
    expected[:, 2, 5] = -3 * (images[:, 0, 2, 5] - OTHERS[:, 0, 2, 5].mean())
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


def test_expected_gradients_of_a_square_follow_the_integral():
    image = torch.randn(1, 1, 16, 16)
    method = ExpectedGradients(baselines=2, samples=4000, sign="signed").fit(nn.Identity(), [OTHERS[:2]])
    found = method.attribute(Square(), image)[0]
    expected = image[0, 0].square() - OTHERS[:2, 0].square().mean(0)  # the mean over both of x^2 - b^2
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_expected_gradients_add_up_to_the_rise_above_the_mean_baseline(model, images):
    target = torch.tensor([0, 1, 2, 1, 0])
    method = ExpectedGradients(baselines=12, samples=1200, sign="signed").fit(model, [OTHERS])
    with torch.no_grad():
        rise = (model(images) - model(OTHERS).mean(0)).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(method.attribute(model, images, target).sum((1, 2)), rise, rtol=0.03, atol=1e-3)
    assert rise.abs().min() > 3e-3


def test_baselines_are_the_first_images_and_survive_saving_and_watching(model, images):
    method = ExpectedGradients(baselines=7).fit(model, OTHERS.split(5))
    assert torch.equal(method.state_dict()["baselines"], OTHERS[:7]) and method.num_observed == 7
    again = ExpectedGradients(baselines=7)
    again.load_state_dict(method.state_dict())
    watching, counting = ExpectedGradients(baselines=7), ObservedRows()
    with frozen(model), counting.active(), watching.observing(model), torch.inference_mode():
        counting.rows = torch.tensor([False, True, True, True, True])
        model(OTHERS[7:])
        counting.rows = True
        model(OTHERS[:4])
    assert torch.equal(watching.state_dict()["baselines"], torch.cat([OTHERS[8:], OTHERS[:3]]))
    target = torch.tensor([0, 1, 2, 1, 0])
    assert torch.equal(again.attribute(model, images, target), method.attribute(model, images, target))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: SmoothGrad(samples=0), "samples=0"),
        (lambda: SmoothGrad(noise=-0.1), "noise=-0.1"),
        (lambda: ExpectedGradients(baselines=1), "baselines=1"),
        (lambda: ExpectedGradients(samples=0), "samples=0"),
        (lambda: ExpectedGradients(sign="both"), "sign='both'"),
        (lambda: ExpectedGradients().fit(nn.Identity(), [OTHERS[:1]]), "held 1"),
        (lambda: ExpectedGradients().load_state_dict({}), "no baselines"),
        (lambda: METHODS[1].attribute(Square(), torch.zeros(1, 1, 8, 8)), r"\(1, 16, 16\)"),
    ],
)
def test_what_does_not_fit_is_named(build, told):
    with pytest.raises(ValueError, match=told):
        build()


def test_expected_gradients_without_baselines_say_so():
    with pytest.raises(RuntimeError, match="call fit"):
        ExpectedGradients().attribute(Square(), torch.zeros(1, 1, 8, 8))
