"""Empty maps, by maps made by hand."""

import math

import pytest
import torch

from lightning_chex.attribution import empty_maps, empty_warning, least_bits
from lightning_chex.report import Explanation
from lightning_chex.report.dashboard import TABLE_COLUMNS, pictures_of, table_rows
from lightning_chex.report.film import read_frames, write_frame


def explanation(saliency: torch.Tensor, unit: str) -> Explanation:
    return Explanation("a", torch.rand(16, 16), saliency, 0, "Mass", 0.5, 1.0, torch.zeros(0, 4), None, unit=unit)


def test_bits_are_compared_with_those_that_name_one_pixel():
    assert least_bits((16, 16)) == 8 and least_bits((224, 224)) == pytest.approx(math.log2(50176))
    maps = torch.zeros(4, 16, 16)
    maps[0, 3, 4] = 7.99
    maps[1, 3, 4] = 8.0
    maps[2] = 9 / 256  # flat, but more bits than one pixel's name takes
    maps[3] = 0.01
    assert empty_maps(maps, "bits per pixel").tolist() == [True, False, False, True]


def test_maps_in_other_units_are_empty_where_they_are_constant():
    maps = torch.full((4, 8, 8), 1e-9)
    maps[1, 0, 0] = 2e-9
    maps[2] = torch.nan
    maps[3] = torch.inf
    assert empty_maps(maps, "output").tolist() == [True, False, True, True]
    assert empty_maps(maps.view(2, 2, 8, 8), "output").shape == (2, 2)
    assert empty_maps(maps[2], "bits per pixel").item() is True


def test_warning_names_methods_above_five_per_cent_and_the_remedy():
    assert empty_warning({"iba": 0.05, "lrp": 0.0, "none": math.nan}) is None
    found = empty_warning({"iba": 0.5, "lrp": 0.01})
    assert found is not None and "50% of iba" in found and "lrp" not in found and "smaller beta" in found


def test_pictures_tables_and_film_strips_name_empty_maps(tmp_path):
    little, much = torch.full((16, 16), 0.01), torch.full((16, 16), 0.1)
    shown = [explanation(little, "bits per pixel"), explanation(much, "bits per pixel")]
    assert [e.empty for e in shown] == [True, False]
    assert ["empty map" in e.caption for e in shown] == [True, False]
    assert ["empty map" in picture.caption for picture in pictures_of(shown, 1.0)] == [True, False]
    column = TABLE_COLUMNS.index("empty")
    assert [row[column] for row in table_rows(shown, 0)] == [1, 0]
    write_frame(tmp_path, shown, 0, 1)
    assert read_frames(tmp_path)[0].figures[:, 3].tolist() == [1, 0]
