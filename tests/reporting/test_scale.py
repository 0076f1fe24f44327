"""One scale a run: what is little looks like little."""

import numpy as np
import pytest
import torch
from test_pictures import explanation

from lightning_chex.reporting import figure, overlay, sheet, top_of, write_pictures


@pytest.mark.parametrize(
    ("most", "before", "top"),
    [(1.3, 0, 1), (1.5, 0, 2), (0.5, 0, 0.5), (0.3, 1, 1), (0.8, 0.5, 1), (1e-4, 0, 0.2), (7.5, 5, 10)],
)
def test_a_scale_ends_at_a_round_number_and_only_grows(most, before, top):
    assert top_of([torch.full((8, 8), most), torch.zeros(8, 8)], before=before) == pytest.approx(top)


def test_one_strong_map_does_not_make_the_others_look_empty():
    strong, usual = torch.full((8, 8), 0.1), torch.full((32, 32), 1.0)
    strong[:2, :2] = 30.0
    assert top_of([strong, usual, usual]) == pytest.approx(1.0)
    sparse = torch.zeros(32, 32)
    sparse[:4, :4] = 2.0
    assert top_of([sparse, torch.zeros(32, 32)]) == pytest.approx(2.0)


def test_a_single_pixel_does_not_set_the_scale():
    saliency = torch.full((32, 32), 0.5)
    saliency[0, 0] = 40.0
    assert top_of([saliency]) == pytest.approx(0.5)


def test_other_units_have_no_least_scale_and_no_map_no_scale():
    assert top_of([torch.full((8, 8), 4e-7)], "arbitrary units") == pytest.approx(5e-7)
    assert top_of([torch.zeros(8, 8)], "arbitrary units") == 0 and top_of([], before=0.3) == 0.3


def test_a_map_of_nearly_nothing_looks_like_nothing_on_the_scale_of_the_run():
    image, grey = torch.full((64, 64), 0.5), np.full((64, 64, 3), 128)
    nothing = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) * 0.02  # 41 bits in all
    top = top_of([nothing])
    assert np.abs(overlay(image, nothing, top).astype(int) - grey).max() <= 10
    assert np.abs(overlay(image, nothing).astype(int) - grey).max() > 40  # scaled to itself it would tint all of it


def test_twice_the_bits_are_drawn_stronger_and_the_same_bits_alike():
    image = torch.full((16, 16), 0.5)
    weak, strong = torch.zeros(16, 16), torch.zeros(16, 16)
    weak[4:8, 4:8], strong[4:8, 4:8] = 0.2, 0.4
    drawn = [np.abs(overlay(image, one, 0.5).astype(int) - 128).max() for one in (weak, strong)]
    assert drawn[0] < drawn[1]
    strong[10:14, 4:8] = 0.2
    both = overlay(image, strong, 0.5)
    assert (both[10:14, 4:8] == overlay(image, weak, 0.5)[4:8, 4:8]).all()


def test_sheet_and_figure_say_what_the_colours_stand_for(tmp_path):
    made = sheet([explanation(i) for i in range(4)], "all", top=0.5)
    bar = made.axes[-1]
    assert "bits per pixel: full colour from 0.5 on" in bar.get_xlabel() and bar.get_xlim() == pytest.approx((0, 0.5))
    *_, bar = figure(explanation(), top=0.5).axes
    assert bar.get_ylim()[1] == pytest.approx(0.5) and bar.get_ylabel() == "bits per pixel"
    assert figure(explanation(unit="something else")).axes[-1].get_ylabel() == "something else"


def test_pictures_for_print(tmp_path):
    path = write_pictures([explanation()], tmp_path / "print", "one", 0.5, dpi=300, suffix=".pdf")
    assert path.name == "print.pdf" and path.read_bytes().startswith(b"%PDF")
    assert [one.suffix for one in (tmp_path / "print").iterdir()] == [".pdf"]
