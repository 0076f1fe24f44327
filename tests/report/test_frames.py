"""Back from the square: where ImageTransform has put the image, and what lies where in it."""

import numpy as np
import pytest
import torch

from lightning_chex.data import ImageTransform
from lightning_chex.report import source_window, to_source_frame

SHAPES = [(64, 48), (48, 64), (100, 100), (37, 61), (1000, 3), (20, 15), (2320, 2828), (31, 30), (32, 31)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [32, 65])
def test_the_window_is_where_the_transform_has_put_the_image(shape, size):
    mask = np.ones((1, *shape), bool)
    placed = ImageTransform(size)(np.full(shape, 200, np.uint8), masks={"lung_mask": mask})["lung_mask"][0]
    rows, columns = placed.any(1).nonzero().flatten(), placed.any(0).nonzero().flatten()
    expected = (int(rows[0]), int(columns[0]), len(rows), len(columns))
    assert source_window(size, *shape) == expected and placed.sum() == len(rows) * len(columns)


@pytest.mark.parametrize("shape", [(64, 48), (48, 64), (90, 90)])
def test_a_spot_comes_back_to_its_place(shape):
    height, width = shape
    pixels = np.zeros(shape, np.uint8)
    pixels[8:20, 30:42] = 255
    image = ImageTransform(32)(pixels)["image"][0]
    back = to_source_frame(image - image.min(), height, width)
    assert back.shape == shape
    weights = back / back.sum()
    centre = (
        float((weights.sum(1) * (torch.arange(height) + 0.5)).sum()),
        float((weights.sum(0) * (torch.arange(width) + 0.5)).sum()),
    )
    assert centre == pytest.approx((14, 36), abs=0.7)


def test_values_are_kept():
    torch.testing.assert_close(to_source_frame(torch.full((16, 16), 2.5), 40, 23), torch.full((40, 23), 2.5))
