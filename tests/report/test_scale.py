"""One scale a run: what is little looks like little."""

import numpy as np
import pytest
import torch
from test_pictures import explanation

from lightning_chex.report import figure, overlay, shared_scale_limit, sheet, write_pictures


@pytest.mark.parametrize(
    ("most", "before", "top"),
    [(1.3, 0, 1.3), (1.51, 0, 1.6), (0.5, 0, 0.5), (0.3, 1, 1), (0.8, 0.5, 0.8), (1e-4, 0, 0.2), (17.2, 5, 18)],
)
def test_a_scale_ends_at_two_significant_digits_and_only_grows(most, before, top):
    assert shared_scale_limit([torch.full((8, 8), most), torch.zeros(8, 8)], before=before) == pytest.approx(top)


def test_one_strong_map_does_not_make_the_others_look_empty():
    strong, usual = torch.full((8, 8), 0.1), torch.full((32, 32), 1.0)
    strong[:2, :2] = 30.0
    assert shared_scale_limit([strong, usual, usual]) == pytest.approx(1.0)
    sparse = torch.zeros(32, 32)
    sparse[:4, :4] = 2.0
    assert shared_scale_limit([sparse, torch.zeros(32, 32)]) == pytest.approx(2.0)


def test_a_single_pixel_does_not_set_the_scale():
    saliency = torch.full((32, 32), 0.5)
    saliency[0, 0] = 40.0
    assert shared_scale_limit([saliency]) == pytest.approx(0.5)


def lesion(peak: float, seed: int, size: int = 64) -> torch.Tensor:
    """A map with a blob of ``peak`` bits per pixel, on a background that is never exactly zero."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    cy, cx = (torch.rand(2, generator=generator) * size).tolist()
    blob = peak * torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 6.0**2))
    return blob + 0.05 * torch.rand(size, size, generator=generator)


def marked_by_hand(maps: list[torch.Tensor]) -> np.ndarray:
    """All pixels of at least a tenth of their map's 99.5th percentile, by sorting."""
    pooled = []
    for one in maps:
        values = np.sort(one.double().numpy().ravel())
        place = 0.995 * (len(values) - 1)
        low = int(place)
        peak = values[low] + (place - low) * (values[low + 1] - values[low])
        pooled += [value for value in values if value >= 0.1 * peak and value > 0]
    return np.array(pooled)


def test_the_limit_is_the_99th_percentile_of_the_marked_pixels_rounded_up():
    maps = [lesion(peak, seed) for seed, peak in enumerate([4.0, 9.0, 15.0, 22.0])]
    exact = np.quantile(marked_by_hand(maps), 0.99)
    limit = shared_scale_limit(maps)
    assert exact <= limit <= 1.1 * exact
    assert limit == float(f"{limit:.2g}")
    assert shared_scale_limit(maps[::-1]) == limit


def test_about_one_per_cent_of_the_marked_pixels_saturate():
    maps = [lesion(10.0 + 0.2 * seed, seed) for seed in range(40)]
    limit = shared_scale_limit(maps)
    marked = marked_by_hand(maps)
    assert 0.002 <= (marked > limit).mean() <= 0.01
    assert limit > 5  # a limit far below the peaks would draw all lesions alike
    # the same in the pictures: on a black X-ray a saturated pixel has the brightest colour
    brightest = overlay(torch.zeros(1, 1), torch.ones(1, 1), 1.0)[0, 0]
    drawn = np.stack([overlay(torch.zeros(64, 64), one, limit) for one in maps])
    assert (drawn == brightest).all(axis=-1).sum() / len(marked) <= 0.02


def test_values_that_are_not_finite_do_not_count():
    saliency = torch.full((32, 32), 0.5)
    saliency[0, :2] = torch.tensor([float("inf"), float("nan")])
    assert shared_scale_limit([saliency]) == 0.5


def test_other_units_have_no_least_scale_and_no_map_no_scale():
    assert shared_scale_limit([torch.full((8, 8), 4e-7)], "arbitrary units") == pytest.approx(4e-7)
    assert shared_scale_limit([torch.zeros(8, 8)], "arbitrary units") == 0 and shared_scale_limit([], before=0.3) == 0.3


def test_a_map_of_nearly_nothing_looks_like_nothing_on_the_scale_of_the_run():
    image, grey = torch.full((64, 64), 0.5), np.full((64, 64, 3), 128)
    nothing = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) * 0.02  # 41 bits in all
    top = shared_scale_limit([nothing])
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
