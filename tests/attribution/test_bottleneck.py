import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from lightning_chex.attribution import bits_per_pixel
from lightning_chex.attribution.blur import Blur, blur_matrix
from lightning_chex.attribution.bottleneck.mask import ALPHA_LIMIT, capacity, capacity_gradient
from lightning_chex.attribution.bottleneck.solution import bits_per_cell


def conv_blur(mask, sigma=1.0):
    """The authors' blur, written as a padded 5 x 5 convolution."""
    axis = torch.exp(-torch.arange(-2, 3, dtype=torch.float64).square() / (2 * sigma**2))
    kernel = torch.outer(axis, axis)
    kernel = (kernel / kernel.sum()).expand(mask.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(mask, (2, 2, 2, 2), mode="reflect"), kernel, groups=mask.shape[1])


@pytest.mark.parametrize("size", [(14, 14), (3, 9), (56, 5)])
def test_blur_is_the_reflection_padded_gaussian_convolution(size):
    mask = torch.rand(2, 3, *size, dtype=torch.float64)
    blur = Blur(*size, sigma=1.0, like=mask)
    torch.testing.assert_close(blur(mask), conv_blur(mask))


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_blur_keeps_constants_on_any_length(length):
    torch.testing.assert_close(blur_matrix(length).sum(1), torch.ones(length, dtype=torch.float64))
    assert (blur_matrix(length) >= 0).all()


def test_blur_of_width_zero_changes_nothing():
    mask = torch.rand(1, 2, 4, 6)
    assert torch.equal(Blur(4, 6, 0.0, mask)(mask), mask)


def test_adjoint_of_blur_is_its_transpose():
    x, y = torch.rand(2, 1, 1, 6, 7, dtype=torch.float64)
    blur = Blur(6, 7, 1.0, x)
    torch.testing.assert_close((blur(x) * y).sum(), (x * blur.adjoint(y)).sum())


@pytest.mark.parametrize("lambda_", [1e-6, 1e-3, 0.2, 0.49, 0.51, 0.9, 0.9933, 1 - 1e-6, 1 - 1e-12])
def test_capacity_is_the_divergence_of_the_two_normals(lambda_):
    # Z given F is N(lambda F + (1 - lambda) mu, ((1 - lambda) sigma)^2), Q is N(mu, sigma^2)
    mu, sigma = torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.9, dtype=torch.float64)
    features = torch.linspace(-4, 5, 7, dtype=torch.float64)
    lam = torch.full_like(features, lambda_)
    expected = kl_divergence(Normal(lam * features + (1 - lam) * mu, (1 - lam) * sigma), Normal(mu, sigma))
    found = capacity((features - mu) / sigma, lam, 1 - lam)
    # the reference itself subtracts nearly equal numbers where lambda is small
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("lambda_", [1e-7, 1e-5, 1e-4, 1e-3])
def test_capacity_in_float32_keeps_its_digits_where_little_passes(lambda_):
    r = torch.tensor([0.0, 0.5, 3.0])
    lam = torch.full_like(r, lambda_)
    found = capacity(r, lam, 1 - lam)
    # by series: KL = lambda^2 (r^2 + 2) / 2 + O(lambda^3)
    expected = lambda_**2 * (r.double() ** 2 + 2) / 2
    assert (found >= 0).all()
    torch.testing.assert_close(found.double(), expected, rtol=5e-3, atol=1e-14)


def test_capacity_gradient_is_the_derivative():
    r = torch.randn(200, dtype=torch.float64)
    lam = torch.rand(200, dtype=torch.float64) * 0.98 + 0.01
    step = 1e-6
    slope = (capacity(r, lam + step, 1 - lam - step) - capacity(r, lam - step, 1 - lam + step)) / (2 * step)
    torch.testing.assert_close(capacity_gradient(r, lam, 1 - lam), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("alpha", [-ALPHA_LIMIT, -30.0, 17.0, 40.0, ALPHA_LIMIT])
def test_nothing_is_infinite_at_the_ends_of_alpha(alpha):
    alpha = torch.full((1, 1, 6, 6), alpha)
    blur = Blur(6, 6, 1.0, alpha)
    lam, complement = blur(torch.sigmoid(alpha)), blur(torch.sigmoid(-alpha))
    r = torch.linspace(-5, 5, 36).view(1, 1, 6, 6)
    assert torch.isfinite(capacity(r, lam, complement)).all()
    slope = blur.adjoint(capacity_gradient(r, lam, complement)) * torch.sigmoid(alpha) * torch.sigmoid(-alpha)
    assert torch.isfinite(slope).all()


def test_capacity_grows_without_bound_towards_the_signal_and_vanishes_towards_noise():
    alphas = torch.tensor([-60.0, -5.0, 0.0, 5.0, 20.0, 60.0])
    found = capacity(torch.ones(6), torch.sigmoid(alphas), torch.sigmoid(-alphas))
    assert (found.diff() > 0).all()
    assert found[0] < 1e-20
    assert found[-1] == pytest.approx(60.0, rel=0.01)  # -log(1 - lambda) = alpha for large alpha


def test_bits_per_pixel_sum_to_the_bits_of_all_cells():
    nats = torch.rand(3, 8, 7, 7, dtype=torch.float64)
    maps = bits_per_pixel(bits_per_cell(nats), (28, 28))
    assert maps.shape == (3, 28, 28)
    torch.testing.assert_close(maps.sum((1, 2)), nats.sum((1, 2, 3)) / math.log(2))
