"""Each threshold rule has one meaning, whoever asks for it: Multi-layer IBA, the measures, the dashboard's levels."""

import pytest
import torch

from lightning_chex.attribution.bottleneck.multi_layer import binarize
from lightning_chex.metrics import (
    ClassLevel,
    Otsu,
    TopFraction,
    intersection_over_union,
    iou_at_levels,
    oracle_iou,
    otsu_mask,
    relative_level_mask,
    top_fraction_mask,
)

CLASSES = torch.zeros(2, dtype=torch.long)
RULES = {
    "top_fraction, in a method": lambda maps: binarize(maps, "top_fraction", 0.5),
    "otsu, in a method": lambda maps: binarize(maps, "otsu", 1.0),
    "rms, in a method": lambda maps: binarize(maps, "rms", 0.5),
    "top_fraction, as a measure's": lambda maps: TopFraction(0.5)(maps, CLASSES),
    "all of it": lambda maps: top_fraction_mask(maps, 1.0),
    "otsu, as a measure's": lambda maps: Otsu()(maps, CLASSES),
    "tuned level": lambda maps: ClassLevel([0.0])(maps, CLASSES),
    "level": lambda maps: relative_level_mask(maps, torch.tensor([0.0, 1.0])),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("size", [1, 6])
def test_a_map_of_zeros_marks_nothing_and_another_constant_everything(rule, size):
    assert not rule(torch.zeros(2, size, size)).any()
    assert rule(torch.full((2, size, size), 0.3)).all()


def test_a_map_of_zeros_overlaps_nothing_at_any_threshold():
    region = torch.zeros(2, 4, 4, dtype=torch.bool)
    region[:, :2] = True
    maps = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])
    assert oracle_iou(maps, region).tolist() == [0, 0.5]
    assert iou_at_levels(maps, region, torch.linspace(0, 1, 5)).mean(1).tolist() == [0, 0.5]
    assert intersection_over_union(otsu_mask(maps), region).tolist() == [0, 0.5]


@pytest.mark.parametrize("ties", [False, True])
def test_a_rule_marks_the_same_in_a_method_and_as_a_measure(ties):
    maps = torch.rand(8, 9, 7, generator=torch.Generator().manual_seed(0)) ** 3
    maps[::2, :4] = 0  # sparse
    maps = maps.mul(5).round() if ties else maps
    assert torch.equal(binarize(maps, "otsu", 1.0), otsu_mask(maps))
    for fraction in (0.05, 0.3, 0.9):
        assert torch.equal(binarize(maps, "top_fraction", fraction), top_fraction_mask(maps, fraction))
