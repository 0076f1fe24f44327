import numpy as np
import pytest
import torch

from lightning_chex.metrics import (
    Otsu,
    TopFraction,
    accuracy_at,
    intersection_over_detected,
    intersection_over_union,
    iou_at_levels,
    oracle_iou,
)


def maps_and_regions(ties: bool, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    saliency = torch.rand(count, 9, 7, generator=generator)
    return saliency.mul(6).round() if ties else saliency, torch.rand(count, 9, 7, generator=generator) < 0.2


def iou(marked: np.ndarray, region: np.ndarray) -> float:
    return (marked & region).sum() / (marked | region).sum()


@pytest.mark.parametrize("ties", [False, True])
def test_the_oracle_is_the_best_of_all_thresholds(ties):
    saliency, region = maps_and_regions(ties)
    best = oracle_iou(saliency, region)
    for one, box, value in zip(saliency.numpy(), region.numpy(), best.tolist(), strict=True):
        assert value == pytest.approx(max(iou(one >= level, box) for level in np.unique(one)))
    for rule in (Otsu(), TopFraction(0.2), TopFraction(0.5)):
        marked = rule(saliency, torch.zeros(6, dtype=torch.long))
        assert (intersection_over_union(marked, region) <= best + 1e-6).all()


def test_the_oracle_of_a_constant_map_marks_every_pixel_and_of_no_region_is_zero():
    region = torch.zeros(2, 4, 5, dtype=torch.bool)
    region[0, :2, :2] = True
    assert oracle_iou(torch.ones(2, 4, 5), region).tolist() == pytest.approx([0.2, 0])


def test_iou_at_every_level_agrees_with_numpy():
    saliency, region = maps_and_regions(ties=False)
    levels = torch.linspace(0, 1, 11)
    curves = iou_at_levels(saliency, region, levels)
    assert curves.shape == (6, 11)
    for i, (one, box) in enumerate(zip(saliency.double().numpy(), region.numpy(), strict=True)):
        scaled = (one - one.min()) / (one.max() - one.min())
        for k in range(10):  # the last level meets the maximum up to rounding only, see below
            assert curves[i, k].item() == pytest.approx(iou(scaled >= levels[k].item(), box), abs=1e-6)
        assert curves[i, 10].item() == pytest.approx(iou(one == one.max(), box))


def test_share_of_what_was_detected_by_hand():
    marked = torch.tensor([[[1, 1, 1, 0]], [[0, 0, 0, 0]], [[1, 0, 0, 0]]], dtype=torch.bool)
    region = torch.tensor([[[0, 1, 1, 1]], [[1, 1, 0, 0]], [[1, 1, 1, 1]]], dtype=torch.bool)
    assert intersection_over_detected(marked, region).tolist() == pytest.approx([2 / 3, 0, 1])


def test_accuracy_counts_the_maps_that_reach_the_overlap():
    overlap = torch.tensor([0.1, 0.3, 0.8, torch.nan])
    reached = accuracy_at(overlap, torch.tensor([0.1, 0.5]))
    assert reached[:3].tolist() == [[1, 0], [1, 0], [1, 1]] and reached[3].isnan().all()


def test_the_right_map_beats_a_random_one_which_is_at_chance():
    generator = torch.Generator().manual_seed(5)
    region = torch.zeros(60, 32, 32, dtype=torch.bool)
    region[:, 4:12, 10:22] = True  # 96 of 1024 pixels
    right = region + 0.1 * torch.rand(60, 32, 32, generator=generator)
    random = torch.rand(60, 32, 32, generator=generator)
    rule, classes = TopFraction(96 / 1024), torch.zeros(60, dtype=torch.long)
    share = 96 / 1024
    by_chance = intersection_over_union(rule(random, classes), region)
    # two independent masks of share p: p^2 / (2 p - p^2)
    assert by_chance.mean().item() == pytest.approx(share / (2 - share), abs=0.006)
    assert intersection_over_detected(rule(random, classes), region).mean().item() == pytest.approx(share, abs=0.012)
    for measure in (rule, Otsu()):
        assert (intersection_over_union(measure(right, classes), region) == 1).all()
        assert intersection_over_union(measure(random, classes), region).max() < 0.2
    assert (oracle_iou(right, region) == 1).all() and (oracle_iou(random, region) < 0.2).all()
