from collections.abc import Iterable

import numpy as np
import pytest
from scipy import ndimage

from lightning_chex.data import PATHOLOGIES
from lightning_chex.data.images.lung_masks import zone_masks
from lightning_chex.data.phantom.anatomy import CM, draw_anatomy
from lightning_chex.data.phantom.drawing import Canvas, Pose
from lightning_chex.data.phantom.findings import Appearance
from lightning_chex.data.phantom.render import Radiograph, draw_view, render
from lightning_chex.data.phantom.severity import draw_scores

SIZE = 160
TRIALS = 12
IN_LUNG = [name for name in PATHOLOGIES if name != "Cardiomegaly"]


def take(number: int, present: Iterable[str] = (), scores: Iterable[int] | None = None, **options) -> Radiograph:
    """Image ``number`` of patient ``number``, with the findings asked for and nothing else about it changed."""
    return render(
        options.pop("size", SIZE),
        draw_anatomy(np.random.default_rng([7, number])),
        draw_view(np.random.default_rng([8, number])),
        entropy=(9, number),
        present=list(present),
        scores=None if scores is None else np.array(scores),
        **options,
    )


def mask_of(shown: Radiograph, name: str) -> np.ndarray:
    return shown.findings[PATHOLOGIES.index(name)]


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return ndimage.binary_dilation(mask, iterations=pixels)


def test_pose_turns_about_the_centre_and_grid_inverts_pixels():
    canvas = Canvas(100, Pose(angle=0.3, scale=1.2, shift=(0.1, -0.05)))
    np.testing.assert_allclose(canvas.pixels(np.array([[0.5, 0.5]])), [[59.5, 44.5]])
    x, y = canvas.grid
    column, row = canvas.pixels(np.array([[x[20, 70], y[20, 70]]]))[0]
    np.testing.assert_allclose([column, row], [70, 20], atol=1e-3)


@pytest.mark.parametrize("number", range(4))
def test_a_radiograph_is_exposed_well(number):
    grey = take(number).pixels
    assert grey.dtype == np.uint8 and grey.shape == (SIZE, SIZE)
    assert 70 < grey.mean() < 170
    assert grey.std() > 40
    assert (grey >= 250).mean() < 0.01
    assert (grey == 0).mean() < 0.3  # the air beside the patient


@pytest.mark.parametrize("number", range(4))
def test_lungs_are_dark_the_heart_and_abdomen_bright_the_air_black(number):
    shown = take(number)
    lungs = shown.lungs.any(axis=0)
    lung, heart = shown.pixels[lungs].mean(), shown.pixels[shown.heart].mean()
    assert heart > 1.7 * lung
    assert shown.pixels[int(0.9 * SIZE), SIZE // 3 : 2 * SIZE // 3].mean() > 1.5 * lung
    assert shown.pixels[:4, :4].mean() < 0.3 * lung


@pytest.mark.parametrize("number", range(6))
def test_lung_masks_are_apart_and_the_right_one_is_image_left(number):
    right, left = take(number, ["Cardiomegaly"] if number % 2 else []).lungs
    assert not (right & left).any()
    assert np.nonzero(right)[1].max() < np.nonzero(left)[1].min()
    for lung in (right, left):
        assert 0.06 < lung.mean() < 0.25


@pytest.mark.parametrize("number", range(6))
def test_the_right_dome_is_the_higher_one(number):
    anatomy = draw_anatomy(np.random.default_rng(number))
    assert anatomy.dome(0) < anatomy.dome(1)


@pytest.mark.parametrize("name", PATHOLOGIES)
def test_a_finding_changes_its_mask_and_nothing_else(name):
    for number in range(TRIALS):
        healthy, ill = take(number).pixels.astype(int), take(number, [name])
        mask, change = mask_of(ill, name), ill.pixels - healthy
        assert mask.any()
        assert not ill.findings[[k for k, other in enumerate(PATHOLOGIES) if other != name]].any()
        assert (change[~mask] == 0).all()
        darker = name == "Pneumothorax"
        lung = mask & take(number).lungs.any(axis=0)  # heart and abdomen hide what lies before them
        contrast = -np.median(change[lung]) if darker else change[lung].mean()
        assert contrast > (8 if darker else 15), (name, number, contrast)


@pytest.mark.parametrize("name", PATHOLOGIES)
def test_conspicuity_scales_contrast(name):
    number = 2
    healthy = take(number).pixels.astype(int)
    faint, clear = (
        np.abs(take(number, [name], appearance=Appearance(conspicuity=c)).pixels - healthy).sum() for c in (0.3, 1.0)
    )
    assert 0 < faint < 0.7 * clear


LUNG_FINDINGS = ["Atelectasis", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"]


@pytest.mark.parametrize("name", LUNG_FINDINGS)
def test_a_bilateral_finding_changes_each_lung_and_nothing_else(name):
    for number in range(TRIALS):
        healthy, ill = take(number).pixels.astype(int), take(number, [name], appearance=Appearance(bilateral=True))
        mask = mask_of(ill, name)
        middle = mask.shape[1] // 2
        assert mask[:, : middle - 8].any() and mask[:, middle + 8 :].any()
        assert ((ill.pixels - healthy)[~mask] == 0).all()


def test_in_a_fallen_lung_no_bilateral_finding_is_drawn():
    for number in range(TRIALS):
        shown = take(number, ["Pneumothorax", "Mass"], appearance=Appearance(bilateral=True))
        columns = [np.nonzero(mask_of(shown, name))[1].mean() for name in ("Pneumothorax", "Mass")]
        assert (columns[0] - SIZE / 2) * (columns[1] - SIZE / 2) < 0


@pytest.mark.parametrize("name", LUNG_FINDINGS)
def test_the_extent_scales_the_area_of_a_finding(name):
    areas = [
        np.mean([mask_of(take(n, [name], appearance=Appearance(extent=e)), name).mean() for n in range(TRIALS)])
        for e in (0.6, 1.0, 1.4)
    ]
    assert areas[0] < 0.75 * areas[1] and areas[1] < 0.9 * areas[2]


def test_another_entropy_is_another_noise_and_another_place():
    anatomy, view = draw_anatomy(np.random.default_rng(0)), draw_view(np.random.default_rng(0))
    one, other = (render(SIZE, anatomy, view, (0, number), ["Mass"]) for number in (0, 1))
    assert (mask_of(one, "Mass") != mask_of(other, "Mass")).any()
    elsewhere = ~(mask_of(one, "Mass") | mask_of(other, "Mass")) & one.heart
    assert (one.pixels != other.pixels)[elsewhere].mean() > 0.5


def test_findings_do_not_depend_on_each_other():
    alone, together = take(3, ["Nodule"]), take(3, ["Nodule", "Effusion", "Infiltration"])
    np.testing.assert_array_equal(mask_of(alone, "Nodule"), mask_of(together, "Nodule"))


@pytest.mark.parametrize("name", PATHOLOGIES)
def test_boxes_are_the_bounds_of_connected_masks(name):
    for number in range(TRIALS):
        shown = take(number, [name])
        parts, _ = ndimage.label(mask_of(shown, name), structure=np.ones((3, 3)))
        expected = {(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(parts)}
        assert shown.boxes.dtype == np.float32 and shown.box_labels.dtype == np.int64
        assert {tuple(box) for box in shown.boxes.astype(int).tolist()} == expected
        assert len(shown.boxes) == len(expected)
        assert (shown.box_labels == PATHOLOGIES.index(name)).all()


def test_every_finding_is_drawn_even_when_all_are_there_and_the_image_is_tiny():
    for number in range(60):
        shown = take(number, PATHOLOGIES, size=32)
        assert shown.findings.any(axis=(1, 2)).all(), number
        assert set(shown.box_labels.tolist()) == set(range(len(PATHOLOGIES)))


def test_no_finding_has_no_box():
    shown = take(0)
    assert shown.boxes.shape == (0, 4) and shown.box_labels.shape == (0,) and not shown.findings.any()


@pytest.mark.parametrize("name", IN_LUNG)
def test_findings_of_lung_and_pleura_lie_in_the_lungs(name):
    for number in range(TRIALS):
        shown = take(number, [name])
        assert not (mask_of(shown, name) & ~grown(shown.lungs.any(axis=0), 3)).any()


def share_of_height(shown: Radiograph, mask: np.ndarray, side: int) -> float:
    """Mean height of a mask in a lung: 0 at its apex, 1 at its lowest point."""
    rows = np.flatnonzero(shown.lungs[side].any(axis=1))
    return float((np.nonzero(mask)[0].mean() - rows[0]) / (rows[-1] - rows[0]))


def sides_of(shown: Radiograph, mask: np.ndarray) -> list[int]:
    return [side for side in (0, 1) if (mask & shown.lungs[side]).any()]


def test_effusion_fills_the_costophrenic_angle_and_climbs_towards_the_ribs():
    for number in range(TRIALS):
        shown = take(number, ["Effusion"])
        for side in sides_of(shown, mask_of(shown, "Effusion")):
            fluid, lung = mask_of(shown, "Effusion") & shown.lungs[side], shown.lungs[side]
            lowest = np.nonzero(lung)[0].max()
            assert fluid[lowest][lung[lowest]].all()
            assert share_of_height(shown, fluid, side) > 0.7
            rows, columns = np.nonzero(fluid)
            highest = columns[rows == rows.min()].mean()
            assert (2 * side - 1) * (highest - (columns.min() + columns.max()) / 2) > 0


def test_atelectasis_is_flat_and_in_a_lower_zone():
    for number in range(TRIALS):
        shown = take(number, ["Atelectasis"])
        bands = mask_of(shown, "Atelectasis")
        (side,) = sides_of(shown, bands)
        assert share_of_height(shown, bands, side) > 0.5


def test_pneumothorax_lies_along_apex_and_ribs_of_one_lung_and_has_no_vessels():
    for number in range(TRIALS):
        shown = take(number, ["Pneumothorax"])
        air = mask_of(shown, "Pneumothorax")
        (side,) = sides_of(shown, air)
        assert not (air & grown(shown.lungs[1 - side], 3)).any()
        top = np.nonzero(shown.lungs[side])[0].min()
        assert air[top + 2].any()
        offset = (2 * side - 1) * (np.nonzero(air)[1].mean() - np.nonzero(shown.lungs[side])[1].mean())
        assert offset > 0  # lateral of the lung's middle


def test_a_collapsed_lung_shows_no_nodule():
    for number in range(TRIALS):
        shown = take(number, ["Pneumothorax", "Nodule"])
        (collapsed,) = sides_of(shown, mask_of(shown, "Pneumothorax"))
        assert not (mask_of(shown, "Nodule") & shown.lungs[collapsed]).any()


@pytest.mark.parametrize(("name", "least", "most"), [("Nodule", 0.0, 3.0), ("Mass", 3.0, 9.0)])
def test_three_centimetres_part_nodule_from_mass(name, least, most):
    for number in range(2 * TRIALS):
        shown = take(number, [name], size=2 * SIZE)
        centimetre = CM * 2 * SIZE * draw_view(np.random.default_rng([8, number])).pose.scale
        for x1, y1, x2, y2 in shown.boxes:
            longest = max(x2 - x1, y2 - y1)
            assert longest < most * centimetre + 1
            # heart and ribs may cover part of it
            inside = not (grown(mask_of(shown, name), 3) & ~shown.lungs.any(axis=0)).any()
            assert longest > least * centimetre or not inside


def cardiothoracic(shown: Radiograph) -> float:
    heart, chest = np.nonzero(shown.heart)[1], np.nonzero(shown.lungs.any(axis=0))[1]
    return float(np.ptp(heart) / np.ptp(chest))


def test_cardiomegaly_is_a_heart_wider_than_half_the_chest():
    for number in range(TRIALS):
        healthy, ill = take(number), take(number, ["Cardiomegaly"])
        assert cardiothoracic(healthy) < 0.5 < cardiothoracic(ill)
        mask = mask_of(ill, "Cardiomegaly")
        assert (mask[ill.heart]).all()
        assert not (mask & ~grown(ill.heart, 3)).any()


def test_zones_cut_each_lung_into_thirds():
    lungs = take(1).lungs
    zones = zone_masks(lungs)
    np.testing.assert_array_equal(zones[:3].any(axis=0), lungs[0])
    np.testing.assert_array_equal(zones[3:].any(axis=0), lungs[1])
    assert zones.sum(axis=0).max() == 1
    for side in (0, 1):
        rows = [np.flatnonzero(zone.any(axis=1)) for zone in zones[3 * side : 3 * side + 3]]
        assert np.ptp([len(third) for third in rows]) <= 1
        assert rows[0].max() < rows[1].min() and rows[1].max() < rows[2].min()


@pytest.mark.parametrize("zone", range(6))
def test_a_zone_grows_more_opaque_with_its_score_and_the_others_stay(zone):
    scores = np.zeros((4, 6), int)
    scores[:, zone] = range(4)
    for number in range(3):
        shown = [take(number, scores=row) for row in scores]
        zones = zone_masks(shown[0].lungs)
        brightness = [image.pixels[zones[zone]].mean() for image in shown]
        assert (np.diff(brightness) > 4).all(), brightness
        far = ndimage.distance_transform_edt(~zones[zone]) > SIZE / 10
        np.testing.assert_array_equal(shown[3].pixels[far], shown[0].pixels[far])
        assert not shown[3].findings.any()


def test_scores_spread_over_their_range_and_bases_are_worse_than_apices():
    scores = np.stack([draw_scores(np.random.default_rng(i)) for i in range(2000)])
    assert set(scores.sum(axis=1)) == set(range(19))
    means = scores.mean(axis=0)
    assert means[2] > means[1] > means[0] and means[5] > means[4] > means[3]
    correlation = np.corrcoef(scores.T)
    assert correlation.min() > 0.5
