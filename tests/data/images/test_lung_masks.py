"""Six zones from lungs: hand-made lungs, and properties that hold for any."""

import numpy as np
import pytest
import torch

from lightning_chex.data import SyntheticCXR, lung_zones, zones_from_boxes, zones_from_probabilities
from lightning_chex.data.images.lung_masks import FRAGMENT, clean_lungs, split_lungs


def block(height: int, width: int, *rectangles: tuple[int, int, int, int]) -> np.ndarray:
    """Rectangles of rows and columns (top, bottom, left, right) in an image."""
    mask = np.zeros((height, width), bool)
    for top, bottom, left, right in rectangles:
        mask[top:bottom, left:right] = True
    return mask


def ellipses(seed: int) -> np.ndarray:
    """Two lungs of random place and size with crumbs around them, (2, 96, 96)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    lungs = []
    for centre in (28, 68):
        cy, cx = 48 + rng.uniform(-6, 6), centre + rng.uniform(-4, 4)
        ry, rx = rng.uniform(18, 40), rng.uniform(10, 22)
        lungs.append((((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1) | (rng.random((96, 96)) < 0.003))
    return np.stack(lungs)


def thirds_of(lung: np.ndarray) -> list[int]:
    rows = np.flatnonzero(lung.any(axis=1))
    return [int(rows[0]), int(rows[-1]) + 1]


def test_zones_of_two_blocks_are_where_they_are_counted_by_hand():
    lungs = np.stack([block(20, 20, (2, 11, 1, 7)), block(20, 20, (4, 16, 12, 19))])
    zones = lung_zones(torch.from_numpy(lungs)).numpy()
    expected = [(2, 5, 1, 7), (5, 8, 1, 7), (8, 11, 1, 7), (4, 8, 12, 19), (8, 12, 12, 19), (12, 16, 12, 19)]
    assert zones.shape == (6, 20, 20)
    for zone, rectangle in zip(zones, expected, strict=True):
        np.testing.assert_array_equal(zone, block(20, 20, rectangle))


@pytest.mark.parametrize("seed", range(20))
def test_zones_are_disjoint_cover_the_clean_lungs_and_have_equal_heights(seed):
    lungs = ellipses(seed)
    clean = clean_lungs(lungs)
    zones = lung_zones(torch.from_numpy(lungs)).numpy()
    assert zones.sum(axis=0).max() == 1
    for side in (0, 1):
        three = zones[3 * side : 3 * side + 3]
        np.testing.assert_array_equal(three.any(axis=0), clean[side])
        top, bottom = thirds_of(clean[side])
        spans = [thirds_of(zone) for zone in three]
        assert spans[0][0] == top and spans[2][1] == bottom
        assert spans[0][1] == spans[1][0] and spans[1][1] == spans[2][0]
        assert all(abs((end - start) - (bottom - top) / 3) < 1 for start, end in spans)


def test_the_phantoms_lungs_have_their_zones_in_order():
    sample = SyntheticCXR(num_images=1, size=96, target="severity")[0]
    zones = lung_zones(sample["lung_mask"])
    assert zones.flatten(1).any(dim=1).all()
    centres = [zone.nonzero().float().mean(dim=0) for zone in zones]
    assert all(centres[i][1] < 48 < centres[i + 3][1] for i in range(3))
    assert centres[0][0] < centres[1][0] < centres[2][0] and centres[3][0] < centres[4][0] < centres[5][0]


def test_a_missing_lung_has_empty_zones_and_leaves_the_other_alone():
    lungs = np.stack([block(30, 30, (3, 27, 2, 12)), block(30, 30)])
    zones = lung_zones(torch.from_numpy(lungs))
    assert zones[:3].flatten(1).sum(dim=1).tolist() == [80, 80, 80] and not zones[3:].any()
    assert not lung_zones(torch.zeros(2, 8, 8, dtype=torch.bool)).any()


def test_fragments_are_dropped_and_large_parts_are_kept():
    main, torn, crumb = (10, 30, 5, 15), (33, 38, 5, 11), (0, 4, 8, 12)  # 200, 30 and 16 pixels
    assert 16 < FRAGMENT * 200 < 30
    lungs = np.stack([block(50, 50, main, torn, crumb), block(50, 50, (10, 30, 30, 40))])
    clean = clean_lungs(lungs)
    np.testing.assert_array_equal(clean[0], block(50, 50, main, torn))
    np.testing.assert_array_equal(clean[1], lungs[1])
    zones = lung_zones(torch.from_numpy(lungs))
    rows = zones[:3].any(dim=2).nonzero()[:, 1]
    assert rows.min() == 10 and rows.max() == 37  # the crumb above does not stretch the thirds


def test_pixels_of_both_lungs_go_to_the_nearer_one():
    lungs = np.stack([block(12, 24, (2, 10, 2, 14)), block(12, 24, (2, 10, 10, 22))])
    clean = clean_lungs(lungs)
    np.testing.assert_array_equal(clean[0], block(12, 24, (2, 10, 2, 12)))
    np.testing.assert_array_equal(clean[1], block(12, 24, (2, 10, 12, 22)))
    assert lungs[0].sum() == 96  # the input is left as it was


@pytest.mark.parametrize(
    ("right", "left"),
    [
        ([(5, 35, 4, 16)], [(8, 36, 24, 36)]),  # two lungs
        ([(5, 20, 4, 16), (23, 35, 5, 15)], [(8, 36, 24, 36)]),  # the right one torn in two
        ([(5, 35, 4, 20)], [(36, 39, 23, 25), (8, 36, 28, 37)]),  # with a crumb below
        ([(5, 35, 4, 16)], []),  # one is missing
        ([], [(5, 35, 26, 37)]),
        ([(5, 20, 4, 16), (22, 35, 4, 15)], []),  # and the other one torn
        ([], []),
    ],
)
def test_a_mask_of_both_lungs_is_parted(right, left):
    expected = np.stack([block(40, 40, *right), block(40, 40, *left)])
    np.testing.assert_array_equal(split_lungs(expected.any(axis=0)), expected)


def test_lungs_that_touch_are_cut_between_them():
    right, left, bridge = (5, 35, 4, 17), (8, 36, 23, 36), (15, 25, 17, 23)
    parts = split_lungs(block(40, 40, right, left, bridge))
    assert (parts[0] & block(40, 40, left)).sum() == 0 and (parts[1] & block(40, 40, right)).sum() == 0
    assert parts.sum() == block(40, 40, right, left, bridge).sum()
    assert abs(int(parts[0].sum()) - 13 * 30 - 30) <= 10  # the bridge is shared, up to a column
    zones = lung_zones(torch.from_numpy(parts))
    assert zones.flatten(1).any(dim=1).all()


def test_tilted_lungs_that_share_columns_are_parted_as_wholes():
    y, x = np.mgrid[:100, :100]
    right, left = (np.abs(x + 0.5 * (y - 50) - centre) < 14 for centre in (30, 68))
    tall = (y > 15) & (y < 85)
    expected = np.stack([right & tall, left & tall])
    assert (expected[0].any(axis=0) & expected[1].any(axis=0)).any()
    np.testing.assert_array_equal(split_lungs(expected.any(axis=0)), expected)


@pytest.mark.parametrize("seed", range(20))
def test_parting_loses_no_pixel(seed):
    mask = ellipses(seed).any(axis=0)
    parts = split_lungs(mask)
    np.testing.assert_array_equal(parts.any(axis=0), mask)
    assert not parts.all(axis=0).any()


def test_zones_from_boxes_are_thirds_of_the_boxes():
    boxes = torch.tensor([[1.0, 2, 7, 11], [12, 4, 19, 16]])
    lungs = np.stack([block(20, 20, (2, 11, 1, 7)), block(20, 20, (4, 16, 12, 19))])
    assert zones_from_boxes(boxes, 20, 20).equal(lung_zones(torch.from_numpy(lungs)))
    # pixel centres decide, what is outside the image is cut off, and a box without area is a missing lung
    zones = zones_from_boxes(torch.tensor([[-5.0, 0.6, 2.4, 9.6], [3, 3, 3, 3]]), 9, 9)
    assert zones.flatten(1).sum(dim=1).tolist() == [6, 4, 6, 0, 0, 0] and not zones[:, 0].any()
    assert not zones_from_boxes(torch.full((2, 4), torch.nan), 9, 9).any()


def test_zones_from_a_networks_probabilities():
    probabilities = torch.zeros(2, 12, 12)
    probabilities[0, 1:10, :7] = 0.9
    probabilities[1, 1:10, 5:] = 0.6  # two columns are claimed by both: the surer one has them
    zones = zones_from_probabilities(probabilities)
    assert zones.flatten(1).sum(dim=1).tolist() == [21, 21, 21, 15, 15, 15]
    assert zones_from_probabilities(probabilities, threshold=0.7).flatten(1).sum(dim=1).tolist() == [21] * 3 + [0] * 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lung_zones(torch.zeros(2, 8, 8)), "lung_mask is torch.float32"),
        (lambda: lung_zones(torch.zeros(8, 8, dtype=torch.bool)), r"lung_mask is torch.bool \(8, 8\)"),
        (lambda: zones_from_boxes(torch.zeros(4), 8, 8), r"boxes has shape \(4,\)"),
        (lambda: zones_from_boxes(torch.tensor([[5.0, 0, 2, 4], [0, 0, 1, 1]]), 8, 8), "x2 and y2"),
        (lambda: zones_from_probabilities(torch.zeros(8, 8)), r"probabilities has shape \(8, 8\)"),
        (lambda: zones_from_probabilities(torch.zeros(2, 8, 8), threshold=1.0), "threshold is 1.0"),
    ],
)
def test_other_shapes_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
