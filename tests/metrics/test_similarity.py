import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lightning_chex.metrics import spearman


@pytest.mark.parametrize("levels", [3, 40, None])
def test_agrees_with_scipy_with_ties_and_without(levels):
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 6, 9, 7))
    second += first * np.linspace(-2, 2, 6)[:, None, None]  # from against to alike
    if levels:
        first, second = (np.round(maps * levels / 6) for maps in (first, second))
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    result = spearman(torch.from_numpy(first).float(), torch.from_numpy(second).float())
    np.testing.assert_allclose(result, expected, atol=1e-12)
    assert min(expected) < -0.4 and max(expected) > 0.4


def test_order_alone_counts():
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert spearman(maps, maps.exp() * 5 - 3).tolist() == pytest.approx([1, 1])
    assert spearman(maps, -maps).tolist() == pytest.approx([-1, -1])
    swapped = torch.tensor([[[1.0, 2, 4, 3]]])
    assert spearman(torch.arange(4.0).view(1, 1, 4), swapped).item() == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)


def test_a_constant_map_has_no_order():
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    flat = torch.stack([torch.full((4, 4), 0.1), torch.full((4, 4), 3.0) + 1e-6 * maps[1], maps[2]])
    for result in (spearman(maps, flat), spearman(flat, maps)):
        assert result.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (torch.zeros(2, 4, 5), r"\(2, 4, 4\) and \(2, 4, 5\) do not match"),
        (torch.full((2, 4, 4), torch.inf), "second holds NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_named(second, message):
    with pytest.raises(ValueError, match=message):
        spearman(torch.zeros(2, 4, 4), second)
