import numpy as np
import pytest
import torch
from PIL import Image

from lightning_chex.explanations import LungPictures
from lightning_chex.report import lung_overlay, write_lung_sheet


def test_lungs_are_tinted_and_outlined_where_they_are():
    grey = torch.full((20, 30), 0.5)
    predicted, truth = torch.zeros(2, 20, 30, dtype=torch.bool), torch.zeros(2, 20, 30, dtype=torch.bool)
    predicted[0, 2:8, 2:8], predicted[1, 2:8, 20:26] = True, True
    truth[0, 12:18, 2:8] = True
    picture = lung_overlay(grey, predicted, truth).astype(int)
    right, left, plain = picture[4, 4], picture[4, 22], picture[4, 14]
    assert right[0] > right[2] and left[2] > left[0]  # orange and blue
    assert plain.tolist() == [128] * 3 == picture[14, 4].tolist()  # inside a true lung that was not found
    edge = (picture == picture[12, 2]).all(axis=-1)
    expected = np.zeros((20, 30), bool)
    expected[12:18, 2:8] = True
    expected[13:17, 3:7] = False
    np.testing.assert_array_equal(edge, expected)


def test_a_sheet_holds_any_number_of_pictures(tmp_path):
    for number in (1, 6, 7):
        path = tmp_path / "lungs" / f"{number}.png"
        write_lung_sheet([np.full((16, 16, 3), 200, np.uint8)] * number, path, "title")
        assert Image.open(path).size[0] > 500


def test_no_picture_is_no_setting():
    with pytest.raises(ValueError, match="num_images is 0"):
        LungPictures(num_images=0)
