import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_chex.metrics import is_constant, mask_sizes, masked_scores, pearson, random_masks, sensitivity_n


def some(count: int, side: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, side, side, generator=generator)
    return images, torch.rand(count, side, side, generator=generator)


def recorded(predict, seen):
    def recording(images):
        seen.append(images.clone())
        return predict(images)

    return recording


@pytest.mark.parametrize("outputs", [1, 3])
def test_agrees_with_numpy_on_the_masks_it_used(outputs):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, outputs))
    images, saliency = some(4)
    target = torch.tensor([0, 2, 1, 2]) % outputs
    seen: list[torch.Tensor] = []
    settings = {"masks": 8, "value": 7.0, "chunk": 5}
    result = sensitivity_n(recorded(network, seen), images, saliency, [1, 5, 30], target=target, **settings)
    assert max(len(one) for one in seen) == 5
    copies = torch.cat(seen).view(4, 3, 8, 3, 6, 6)
    masked = (copies == 7).all(dim=3)
    for i in range(4):
        for k, size in enumerate([1, 5, 30]):
            masks = masked[i, k].numpy()
            assert (masks.sum((1, 2)) == size).all()
            for copy, mask in zip(copies[i, k], masks, strict=True):
                np.testing.assert_array_equal(copy.numpy()[:, ~mask], images[i].numpy()[:, ~mask])
            sums = [saliency[i].double().numpy()[mask].sum() for mask in masks]
            with torch.no_grad():
                whole = network(images[i : i + 1])[0, target[i]].item()
                drops = [whole - score for score in network(copies[i, k])[:, target[i]].tolist()]
            assert result[i, k].item() == pytest.approx(np.corrcoef(sums, drops)[0, 1], abs=1e-4)


def test_a_linear_model_is_explained_by_its_terms_and_a_random_map_is_at_chance():
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(40, 3, 12, 12, generator=generator)
    weight = torch.randn(12, 12, generator=generator)

    def predict(inputs):
        return (inputs * weight).sum((1, 2, 3))

    sizes = mask_sizes(144, 6)
    terms = (images * weight).sum(1)  # what each pixel adds, the baseline being 0
    right = sensitivity_n(predict, images, terms, sizes)
    random = sensitivity_n(predict, images, torch.rand(40, 12, 12, generator=generator), sizes)
    assert torch.allclose(right, torch.ones_like(right), atol=1e-4)
    assert torch.allclose(sensitivity_n(predict, images, -2 * terms + 5, sizes), -right, atol=1e-4)
    assert random.mean().abs() < 0.05  # 40 images, a deviation of some 1 / sqrt(29) each
    assert (right > random).all()


def test_the_masked_copies_are_scored_once_for_any_number_of_maps():
    images, saliency = some(4)
    seen: list[torch.Tensor] = []
    predict = recorded(lambda x: x.square().mean((1, 2, 3)), seen)
    settings = {"masks": 5, "value": 9.0, "seed": 3}
    scored = masked_scores(predict, images, [2, 9, 20], **settings)
    assert scored.scores.shape == (4, 3, 5) and sum(map(len, seen)) == 4 * 3 * 5
    assert torch.equal(scored.masks, random_masks((6, 6), [2, 9, 20], 5, seed=3))
    assert (scored.masks.sum((2, 3)) == torch.tensor([2, 9, 20])[:, None]).all()
    for maps in (saliency, -saliency, saliency.square()):
        expected = sensitivity_n(predict, images, maps, [2, 9, 20], **settings)
        assert torch.equal(scored.sensitivity(maps), expected)
        rows = torch.tensor([2, 0, 2])
        torch.testing.assert_close(scored.select(rows).sensitivity(maps[rows]), expected[rows], rtol=0, atol=1e-9)
    made = len(seen)
    with pytest.raises(ValueError, match=r"saliency \(3, 6, 6\) does not match 4 images of 6 x 6"):
        scored.sensitivity(saliency[:3])
    with pytest.raises(ValueError, match="NaN"):
        sensitivity_n(predict, images, saliency * torch.nan, [2])
    assert len(seen) == made  # said before any forward pass


def test_degenerate_cases_are_as_stated():
    images, saliency = some(3)
    saliency[1] = 0.3  # sums that do not vary
    said = sensitivity_n(lambda x: x.mean((1, 2, 3)), images, saliency, [4])
    assert said[1] == 0 and (said[[0, 2]] != 0).all()
    # scores that do not vary: not even a constant map is judged
    assert sensitivity_n(lambda x: x.mean((1, 2, 3)) * 0 + 0.7, images, saliency, [4]).isnan().all()


def test_an_image_depends_on_no_other_and_the_seed_decides():
    images, saliency = some(3)

    def predict(x):
        return x.square().mean((1, 2, 3))

    together = sensitivity_n(predict, images, saliency, [2, 9])
    alone = torch.cat([sensitivity_n(predict, images[i : i + 1], saliency[i : i + 1], [2, 9]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert torch.equal(together, sensitivity_n(predict, images, saliency, [2, 9]))
    assert not torch.equal(together, sensitivity_n(predict, images, saliency, [2, 9], seed=1))


@pytest.mark.parametrize(("pixels", "count"), [(224 * 224, 50), (144, 6), (2, 5), (10, 1)])
def test_sizes_are_the_logarithmic_axis(pixels, count):
    sizes = mask_sizes(pixels, count)
    assert sizes == sorted(set(np.logspace(0, np.log10(pixels - 1), count).round().astype(int).tolist()))
    assert sizes[0] == 1 and sizes[-1] <= pixels - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": []}, "at least one"),
        ({"sizes": [0]}, r"sizes=\[0\]"),
        ({"sizes": [3, 36]}, "1 to 35"),
        ({"masks": 2}, "masks=2"),
        ({"value": torch.zeros(5, 1, 1, 1)}, "value does not broadcast"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    images, saliency = some(2)
    with pytest.raises(ValueError, match=message):
        sensitivity_n(lambda x: x.mean((1, 2, 3)), images, saliency, settings.pop("sizes", [3]), **settings)


def test_pearson_agrees_with_numpy_and_says_when_it_is_undefined():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 5, 50))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)]
    result = pearson(torch.from_numpy(first), torch.from_numpy(second) * 3 + 100)
    np.testing.assert_allclose(result, expected, atol=1e-10)
    constant = torch.full((1, 50), 0.1)
    assert math.isnan(pearson(constant, torch.from_numpy(second[:1])).item())
    assert math.isnan(pearson(torch.from_numpy(first[:1]), constant * 0).item())


def test_a_row_is_constant_up_to_rounding_whatever_its_scale():
    rows = torch.tensor([[1e6, 1e6], [0.0, 0], [1e-8, 2e-8], [1.0, 1.0000001], [1.0, 1.001]])
    assert is_constant(rows).tolist() == [True, True, False, True, False]
