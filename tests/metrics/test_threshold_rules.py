import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from lightning_chex.metrics import ClassLevel, Otsu, TopFraction, otsu_mask, relative_level_mask, tuned_levels


def otsu_by_hand(values: np.ndarray) -> np.ndarray:
    """Try every split of the values and keep the one with the least variance inside the groups."""
    best, threshold = np.inf, values.min()
    for level in sorted(set(values.ravel()))[1:]:
        lower, upper = values[values < level], values[values >= level]
        inside = lower.var() * lower.size + upper.var() * upper.size
        if inside < best - 1e-12:
            best, threshold = inside, level
    return values >= threshold


@pytest.mark.parametrize("ties", [False, True])
def test_otsu_agrees_with_trying_every_split(ties):
    generator = np.random.default_rng(0)
    maps = generator.gamma(1.0, size=(8, 7, 9)) + 5 * (generator.random((8, 7, 9)) < 0.3)
    maps = maps.round() if ties else maps
    mask = otsu_mask(torch.from_numpy(maps))
    for one, marked in zip(maps, mask, strict=True):
        np.testing.assert_array_equal(marked, otsu_by_hand(one))


def test_otsu_agrees_with_scikit_image_where_its_histogram_is_exact():
    generator = np.random.default_rng(1)
    maps = (generator.gamma(1.0, size=(8, 20, 20)) * 30 + 90 * (generator.random((8, 20, 20)) < 0.2)).astype(np.uint8)
    for one, marked in zip(maps, otsu_mask(torch.from_numpy(maps).float()), strict=True):
        np.testing.assert_array_equal(marked, one > threshold_otsu(one))


def test_otsu_does_not_care_for_scale_and_marks_all_of_a_constant_map():
    maps = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(otsu_mask(maps), otsu_mask(maps * 1e-6 - 3e-7))
    assert otsu_mask(torch.full((1, 3, 3), 0.1)).all()
    assert otsu_mask(torch.ones(2, 1, 1)).all()


def test_levels_by_hand():
    maps = torch.tensor([[[0.0, 1, 2, 4]], [[10.0, 20, 30, 50]], [[7.0, 7, 7, 7]]])
    masks = relative_level_mask(maps, torch.tensor([0.5, 0.3, 0.9]))
    assert masks.int().tolist() == [[[0, 0, 1, 1]], [[0, 0, 1, 1]], [[1, 1, 1, 1]]]
    assert relative_level_mask(maps, torch.ones(3))[:2].int().tolist() == [[[0, 0, 0, 1]]] * 2
    assert relative_level_mask(maps, torch.zeros(3)).all()


def test_the_greatest_value_passes_the_highest_level_whatever_the_rounding():
    maps = torch.rand(500, 1, 3, generator=torch.Generator().manual_seed(0)) * 1e-3 + 0.1
    assert relative_level_mask(maps, torch.ones(500)).flatten(1).any(1).all()


def test_rules_see_the_map_and_its_class():
    maps = torch.tensor([[[0.0, 1, 2, 4]], [[0.0, 1, 2, 4]]])
    classes = torch.tensor([1, 0])
    assert ClassLevel([0.2, 0.6])(maps, classes).sum((1, 2)).tolist() == [1, 3]
    assert TopFraction(0.5)(maps, classes).sum((1, 2)).tolist() == [2, 2]
    assert torch.equal(Otsu()(maps, classes), otsu_mask(maps))


def test_levels_are_tuned_class_by_class():
    levels = torch.tensor([0.1, 0.5, 0.9])
    iou = torch.tensor([[0.1, 0.6, 0.2], [0.9, 0.5, 0.0], [0.2, 0.3, 0.3]])
    # class 0: means .5, .55, .1; class 2: .2, .3, .3; class 1 has none: sums of all 1.2, 1.4, .5
    tuned = tuned_levels(iou, levels, torch.tensor([0, 0, 2]), 3)
    assert tuned == pytest.approx([0.5, 0.5, 0.5])
    assert tuned_levels(iou[1:2], levels, torch.tensor([1]), 2) == pytest.approx([0.1, 0.1])
    with pytest.raises(ValueError, match="no map"):
        tuned_levels(iou[:0], levels, torch.zeros(0, dtype=torch.long), 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopFraction(0), "fraction=0"),
        (lambda: ClassLevel([0.2, 1.5]), "levels="),
        (lambda: ClassLevel([]), "one a class"),
    ],
)
def test_settings_outside_their_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
