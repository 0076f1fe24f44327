import numpy as np
import pytest
import torch

from lightning_chex.attribution.thresholds import binarize, otsu_level


def plain_otsu(values):
    """Try every edge of 256 bins and keep the one with the largest variance between the two classes."""
    low, width = values.min(), (values.max() - values.min()) / 256
    bins = np.minimum(((values - low) / width).astype(int), 255)
    best, level = -1.0, None
    for edge in range(1, 256):
        lower, upper = bins[bins < edge], bins[bins >= edge]
        if len(lower) and len(upper):
            between = len(lower) * len(upper) * (lower.mean() - upper.mean()) ** 2
            if between > best * (1 + 1e-12):
                best, level = between, low + width * edge
    return level


def test_otsu_agrees_with_trying_every_level():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 20, 20, generator=generator) ** 3
    maps[1, 3:9, 3:9] += 2
    for own, level in zip(maps, otsu_level(maps), strict=True):
        assert float(level) == pytest.approx(plain_otsu(own.double().numpy().ravel()), rel=1e-5)


def test_otsu_separates_two_plateaus():
    maps = torch.full((1, 10, 10), 0.1)
    maps[0, 2:5, 2:5] = 0.9
    assert torch.equal(binarize(maps, "otsu", 1.0)[0], maps[0] > 0.5)


def test_rms_is_the_authors_rule_at_their_size():
    maps = torch.rand(3, 224, 224)
    norm = maps.flatten(1).norm(dim=1)[:, None, None]
    assert torch.equal(binarize(maps, "rms", 0.006 * 224), maps / norm >= 0.006)


def test_top_fraction_marks_that_share():
    maps = torch.rand(5, 40, 40)
    assert binarize(maps, "top_fraction", 0.1).flatten(1).sum(1).tolist() == [160] * 5


@pytest.mark.parametrize("rule", ["rms", "top_fraction", "otsu"])
def test_a_map_of_zeros_marks_nothing(rule):
    assert not binarize(torch.zeros(2, 6, 6), rule, 0.5).any()
