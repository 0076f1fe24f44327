import pytest
import torch

from lightning_chex.metrics import corner_mask, edge_mask, mass_accuracy


@pytest.mark.parametrize(("height", "width", "share"), [(50, 50, 0.1), (40, 60, 0.25), (7, 9, 0.01)])
def test_edge_and_corners_by_counting_pixel_by_pixel(height, width, share):
    down, across = max(1, round(share * height)), max(1, round(share * width))
    edge, corner = edge_mask(height, width, share), corner_mask(height, width, share)
    for y in range(height):
        for x in range(width):
            low, wide = min(y, height - 1 - y) < down, min(x, width - 1 - x) < across
            assert bool(edge[y, x]) == (low or wide) and bool(corner[y, x]) == (low and wide)


def test_the_share_of_a_map_in_the_corners_is_its_relevance_mass_there():
    maps = torch.zeros(2, 20, 20)
    maps[0, 1, 1], maps[0, 10, 10], maps[1, 10, 1] = 3.0, 1.0, 2.0
    corners, edge = (made(20, 20)[None].expand(2, -1, -1) for made in (corner_mask, edge_mask))
    assert mass_accuracy(maps, corners).tolist() == [0.75, 0.0]
    assert mass_accuracy(maps, edge).tolist() == [0.0, 0.0]  # one pixel wide
    maps[1, 10, 0] = 6.0
    assert mass_accuracy(maps, edge).tolist() == [0.0, 0.75]


@pytest.mark.parametrize("share", [0, 0.5, -1, float("nan")])
def test_an_impossible_share_is_named(share):
    for make in (edge_mask, corner_mask):
        with pytest.raises(ValueError, match="above 0 and below 0.5"):
            make(8, 8, share)
