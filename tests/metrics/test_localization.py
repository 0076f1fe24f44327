import math

import numpy as np
import pytest
import torch

from lightning_chex.metrics import LocalizationIoU, boxes_to_mask, intersection_over_union, top_fraction_mask


def iou_by_hand(saliency: np.ndarray, region: np.ndarray, fraction: float) -> float:
    """Count pixel by pixel: those among the strongest ``fraction``, ties included, against the region."""
    weakest = sorted(saliency.ravel(), reverse=True)[max(1, round(fraction * saliency.size)) - 1]
    both = either = 0
    for marked, inside in zip((saliency >= weakest).ravel(), region.ravel(), strict=True):
        both += marked and inside
        either += marked or inside
    return both / either if either else 0.0


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.3, 0.5, 1.0])
def test_strongest_pixels_are_as_many_as_asked_and_stronger_than_the_rest(fraction):
    saliency = torch.from_numpy(np.random.default_rng(0).permutation(600).reshape(2, 15, 20)).float()
    mask = top_fraction_mask(saliency, fraction)
    assert mask.shape == saliency.shape and mask.dtype == torch.bool
    for values, marked in zip(saliency, mask, strict=True):
        assert marked.sum() == max(1, round(fraction * 300))
        assert marked.all() or values[marked].min() > values[~marked].max()


def test_at_least_one_pixel_is_marked():
    assert top_fraction_mask(torch.arange(9.0).reshape(1, 3, 3), 1e-6).sum() == 1


def test_ties_with_the_weakest_marked_pixel_are_marked_too():
    saliency = torch.tensor([[[3.0, 2.0, 2.0, 2.0, 0.0]]])
    assert top_fraction_mask(saliency, 0.4)[0, 0].tolist() == [True, True, True, True, False]
    assert top_fraction_mask(torch.full((1, 4, 4), 0.2), 0.05).all()


def test_the_zeros_of_a_sparse_map_are_never_marked():
    saliency = torch.zeros(2, 10, 10)
    saliency[0, 0, :3] = torch.tensor([3.0, 1.0, 2.0])  # three pixels, where ten are asked for
    saliency[1] = saliency[0] - 5
    for mask in top_fraction_mask(saliency, 0.1):
        assert mask.sum() == 3 and mask[0, :3].all()
    assert top_fraction_mask(saliency, 0.02).sum() == 4
    assert top_fraction_mask(saliency, 1.0).all()


def test_a_maps_mask_depends_on_no_other_map_nor_on_its_scale():
    saliency = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    together = top_fraction_mask(saliency, 0.2)
    alone = torch.cat([top_fraction_mask(100 * one[None] + 3, 0.2) for one in saliency])
    assert torch.equal(together, alone)


def test_boxes_mark_the_pixels_whose_centre_they_hold():
    boxes = np.array([[1.0, 0, 3, 2], [3.5, 2.6, 4.6, 3.6], [-5, 3.5, 0.5, 9]], dtype=np.float32)
    expected = np.zeros((4, 6), dtype=bool)
    for y in range(4):
        for x in range(6):
            expected[y, x] = any(x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2 for x1, y1, x2, y2 in boxes)
    mask = boxes_to_mask(torch.from_numpy(boxes), (4, 6))
    assert mask.tolist() == expected.tolist()
    assert mask.sum() == 4 + 2  # the last box ends where a pixel's centre lies, and does not hold it


def test_no_box_marks_nothing():
    mask = boxes_to_mask(torch.zeros(0, 4), (3, 5))
    assert mask.shape == (3, 5) and mask.dtype == torch.bool and not mask.any()


def test_iou_of_masks_by_hand():
    first = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 0]], [[1, 0, 0, 0]]], dtype=torch.bool)
    second = torch.tensor([[[0, 1, 1, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 0]], [[0, 0, 0, 1]]], dtype=torch.bool)
    assert intersection_over_union(first, second).tolist() == pytest.approx([1 / 3, 1, 0, 0])


def random_maps(count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    saliency = torch.rand(count, 12, 10, generator=generator).mul(20).round()  # many ties
    regions = torch.rand(count, 12, 10, generator=generator) < 0.2
    return saliency, regions, torch.randint(classes, (count,), generator=generator)


@pytest.mark.parametrize("fraction", [0.05, 0.25])
def test_mean_iou_over_maps_and_over_classes_against_plain_loops(fraction):
    saliency, regions, classes = random_maps(30, 4)
    classes[classes == 2] = 3  # class 2 occurs nowhere
    metric = LocalizationIoU(4, fraction)
    for part in torch.arange(30).split(7):
        metric.update(saliency[part], regions[part], classes[part])
    values = [iou_by_hand(s.numpy(), r.numpy(), fraction) for s, r in zip(saliency, regions, strict=True)]
    result = metric.compute()
    by_class = {c: [v for v, k in zip(values, classes.tolist(), strict=True) if k == c] for c in range(4)}
    assert result["mean"].item() == pytest.approx(np.mean(values), rel=1e-6)
    assert result["class_mean"].item() == pytest.approx(np.mean([np.mean(v) for v in by_class.values() if v]), rel=1e-6)
    assert result["count"].tolist() == [len(by_class[c]) for c in range(4)]
    for c in (0, 1, 3):
        assert result["per_class"][c].item() == pytest.approx(np.mean(by_class[c]), rel=1e-6)
    assert math.isnan(result["per_class"][2])
    assert result["mean"].item() != pytest.approx(result["class_mean"].item(), rel=1e-3)  # else the test tells nothing


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_nothing_added_gives_nan():
    result = LocalizationIoU(2).compute()
    assert all(math.isnan(result[key]) for key in ("mean", "class_mean")) and result["per_class"].isnan().all()
    assert result["count"].tolist() == [0, 0]


def test_no_map_changes_nothing():
    metric = LocalizationIoU(2, 0.1)
    metric.update(*(t[:5] for t in random_maps(5, 2)))
    before = metric.compute()["mean"].clone()
    metric.update(torch.zeros(0, 12, 10), torch.zeros(0, 12, 10, dtype=torch.bool), torch.zeros(0, dtype=torch.long))
    assert torch.equal(metric.compute()["mean"], before)


def test_two_halves_merge_to_the_whole():
    saliency, regions, classes = random_maps(20, 3)
    whole, first, second = (LocalizationIoU(3, 0.1) for _ in range(3))
    whole.update(saliency, regions, classes)
    first.update(saliency[:6], regions[:6], classes[:6])
    second.update(saliency[6:], regions[6:], classes[6:])
    first.merge_state(second)
    expected, merged = whole.compute(), first.compute()
    for key in ("mean", "class_mean", "per_class", "count"):
        torch.testing.assert_close(merged[key], expected[key])


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_an_impossible_fraction_is_named(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction}"):
        LocalizationIoU(2, fraction)
