import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from lightning_chex.report import Explanation, figure, overlay, sheet, write_pictures
from lightning_chex.report.pictures import with_label


def explanation(number: int = 0, **changes) -> Explanation:
    generator = torch.Generator().manual_seed(number)
    made = {
        "image_id": f"image-{number}",
        "image": torch.rand(32, 40, generator=generator),
        "saliency": torch.rand(32, 40, generator=generator),
        "target": 4,
        "target_name": "Mass",
        "prediction": 0.75,
        "truth": 1.0,
        "boxes": torch.tensor([[10.0, 5, 20, 15]]),
        "iou": 0.5,
    }
    return Explanation(**{**made, **changes})


def test_overlay_shows_the_xray_untouched_where_the_map_is_zero():
    image = torch.linspace(0, 1, 256).reshape(16, 16)
    saliency = torch.zeros(16, 16)
    saliency[2:5, 3:9] = 0.5
    saliency[3, 4] = 2.0
    shown = overlay(image, saliency)
    assert shown.shape == (16, 16, 3) and shown.dtype == np.uint8
    grey = np.round(255 * image.numpy()).astype(np.uint8)
    untouched = (saliency == 0).numpy()
    assert (shown[untouched] == grey[untouched][:, None]).all()
    assert (shown[~untouched] != grey[~untouched][:, None]).any(axis=1).all()
    # the strongest pixel has four fifths of the brightest colour, less the mean of the map over its maximum
    share = 0.8 * (1 - saliency.mean().item() / 2)
    expected = 255 * ((1 - share) * image[3, 4].item() + share * np.array(colormaps["inferno"](1.0)[:3]))
    assert shown[3, 4] == pytest.approx(expected, abs=1)


def test_a_flat_map_shows_faintly_however_it_is_scaled():
    image, focused = torch.full((16, 16), 0.5), torch.zeros(16, 16)
    focused[4:6, 4:6] = 1.0
    flat = torch.full((16, 16), 0.9)
    flat[4:6, 4:6] = 1.0
    grey = overlay(image, torch.zeros(16, 16)).astype(int)
    strong, faint = (np.abs(overlay(image, own).astype(int) - grey).max() for own in (focused, flat))
    assert faint < 0.2 * strong


def test_an_empty_map_is_the_xray_alone():
    image = torch.rand(8, 8)
    assert (overlay(image, torch.zeros(8, 8)) == np.round(255 * image.numpy())[..., None]).all()


def test_overlay_does_not_depend_on_the_unit_of_the_map():
    one = explanation()
    assert (overlay(one.image, one.saliency) == overlay(one.image, 1000 * one.saliency)).all()


def test_a_figure_has_the_xray_the_map_and_the_boxes_in_both(tmp_path):
    made = figure(explanation())
    xray, bits, bar = made.axes
    assert xray.get_title() == "image-0" and bits.get_title() == explanation().caption
    for axis in (xray, bits):
        (box,) = axis.patches
        # pixel 10 spans 10 to 11 in box coordinates, and 9.5 to 10.5 where imshow draws it
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (9.5, 4.5, 10, 10)
    assert bar.get_ylabel() == "bits per pixel"
    assert bar.get_ylim()[1] == pytest.approx(explanation().saliency.max().item())
    made.savefig(tmp_path / "f.png", dpi=80)
    assert Image.open(tmp_path / "f.png").size == (736, 368)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (4, 2, 3), (24, 8, 3), (25, 8, 3)])
def test_a_sheet_has_a_place_for_each_and_at_most_24(count, rows, columns):
    made = sheet([explanation(i) for i in range(count)], "all of them")
    drawn = [axis for axis in made.axes if axis.images]
    assert len(drawn) == 2 * min(count, 24) and len(made.axes) == 2 * rows * columns
    assert made.get_suptitle() == "all of them"
    assert made.get_size_inches() == pytest.approx([5.2 * columns, 2.85 * rows + 0.4])
    # X-ray beside its own map
    for i in range(min(count, 24)):
        xray, bits = drawn[2 * i : 2 * i + 2]
        assert (xray.images[0].get_array() == explanation(i).image.numpy()).all()
        assert (bits.images[0].get_array() == overlay(explanation(i).image, explanation(i).saliency)).all()


def test_every_explanation_is_written_and_a_sheet_beside_them(tmp_path):
    path = write_pictures([explanation(i) for i in range(2)], tmp_path / "run" / "epoch_001", "two")
    assert path == tmp_path / "run" / "epoch_001.png"
    names = sorted(each.name for each in (tmp_path / "run" / "epoch_001").iterdir())
    assert names == ["000_image-0__Mass.png", "001_image-1__Mass.png"]
    with Image.open(path) as page:
        assert page.format == "PNG" and page.size == (832, 260)
        page.load()
    for name in names:
        with Image.open(tmp_path / "run" / "epoch_001" / name) as picture:
            picture.load()
            assert picture.size == (736, 368)


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/passwd", "a/b\\c", "..", "con:*?|<>", "Zürich 1", "$\\frac$", ""]
)
def test_no_name_leaves_the_folder(tmp_path, name):
    folder = tmp_path / "deep" / "run" / "epoch"
    write_pictures([explanation(image_id=name, target_name="$\\Mass/../../x")], folder, "one")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.parent for path in files) == [folder.parent, folder]
    assert not set("/\\:*?|<>") & set(next(folder.iterdir()).name)


def test_long_ids_are_shortened_and_stay_apart(tmp_path):
    write_pictures([explanation(image_id="é" * 300 + end) for end in "ab"], tmp_path / "x", "two")
    assert len({path.name for path in (tmp_path / "x").iterdir()}) == 2


def test_names_that_become_alike_do_not_overwrite_each_other(tmp_path):
    write_pictures([explanation(image_id="a/b"), explanation(image_id="a b")], tmp_path / "x", "two")
    assert len(list((tmp_path / "x").iterdir())) == 2


def test_a_caption_says_what_is_shown():
    one = explanation(saliency=torch.full((4, 4), 2.0))
    assert one.bits == 32
    assert one.caption == "Mass | p 0.75 | true 1 | 32 bits | IoU 0.50"
    severity = explanation(
        saliency=torch.zeros(4, 4), target_name="severity", prediction=9.25, truth=7.5, iou=None, target=None
    )
    assert severity.caption == "severity | score 9.25 | true 7.5 | empty map, 0 bits"


def test_a_label_is_a_readable_band_above_the_picture():
    picture = np.full((224, 452, 3), 100, np.uint8)
    labelled = with_label(picture, "Mass  p 0.93  41 bits  IoU 0.42")
    band = labelled[:-224]
    assert (labelled[-224:] == picture).all() and labelled.shape[1:] == (452, 3)
    rows, columns = np.nonzero(band.max(axis=2) > 128)
    # shown 300 pixels wide, digits are at least 9 pixels high, and the contrast is white on black
    assert (rows.max() - rows.min() + 1) * 300 / 452 >= 9 and band.max() == 255 and band.min() == 0
    assert columns.max() < 452 - 4


def test_a_long_label_is_made_smaller_instead_of_cut():
    labelled = with_label(np.zeros((50, 100, 3), np.uint8), "A very long name of a class " * 3)
    _, columns = np.nonzero(labelled[:-50].max(axis=2))
    assert 90 <= columns.max() < 100
