import numpy as np
import torch
from skimage.filters import threshold_otsu

from lightning_chex.attribution.multi_layer import binarize


def test_otsu_agrees_with_scikit_image_where_its_histogram_is_exact():
    generator = torch.Generator().manual_seed(0)
    # 200 values a map fall into 256 bins, each into one of its own
    maps = (torch.rand(4, 20, 20, generator=generator) ** 3 * 199).round()
    maps[1, 3:9, 3:9] += 400
    maps[1] = maps[1] // 3
    for own, marked in zip(maps, binarize(maps, "otsu", 1.0), strict=True):
        values = own.numpy().astype(np.uint8)
        assert np.array_equal(marked.numpy(), values > threshold_otsu(values))


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
