import numpy as np
import pytest
from PIL import Image

from lightning_chex.data import DataError
from lightning_chex.data.images.images import check_images, find_images, image_id, image_size, read_grey, resolve_inside

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def ramp_png(tmp_path):
    path = tmp_path / "ramp.png"
    Image.fromarray(RAMP).save(path)
    return path


def opaque(alpha: int) -> np.ndarray:
    return np.dstack([RAMP, RAMP, RAMP, np.full_like(RAMP, alpha)])


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RAMP),
        Image.fromarray(np.dstack([RAMP] * 3)),
        Image.fromarray(opaque(255)),  # like some of the NIH files
        Image.fromarray(RAMP).convert("LA"),
        Image.fromarray(RAMP).convert("P"),
        Image.fromarray(RAMP.astype(np.uint16) * 257),
    ],
    ids=["grey", "rgb", "rgba", "grey-alpha", "palette", "16-bit"],
)
def test_every_way_to_store_grey_values_reads_alike(image, tmp_path):
    image.save(tmp_path / "image.png")
    out = read_grey(tmp_path / "image.png")
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, RAMP)


def test_16_bits_are_scaled_by_their_full_range_not_by_the_brightest_pixel(tmp_path):
    values = np.array([[0, 257, 4095, 50000]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "deep.png"), np.rint(values / 257))


def test_transparency_lies_on_black(tmp_path):
    Image.fromarray(opaque(128)).save(tmp_path / "glass.png")
    np.testing.assert_allclose(read_grey(tmp_path / "glass.png"), RAMP * (128 / 255), atol=1)


def test_black_and_white_and_jpeg(tmp_path):
    Image.fromarray(RAMP > 127).save(tmp_path / "binary.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "binary.png"), np.where(RAMP > 127, 255, 0))
    Image.fromarray(RAMP).save(tmp_path / "image.jpg", quality=95)
    np.testing.assert_allclose(read_grey(tmp_path / "image.jpg"), RAMP, atol=12)


def damage(path, kind: str) -> None:
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"not an image at all"}[kind])


@pytest.mark.parametrize("kind", ["empty", "cut", "text"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damaged_files_are_named_when_read_and_before(kind, suffix, tmp_path):
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    for path in (good, bad):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    check_images([good, bad])
    damage(bad, kind)
    with pytest.raises(DataError, match=f"bad{suffix}"):
        read_grey(bad)
    with pytest.raises(DataError, match=f"1 of 2 images .*bad{suffix}"):
        check_images([good, bad])


def test_missing_files_are_counted_and_the_first_named(tmp_path, ramp_png):
    paths = [tmp_path / f"gone{i}.png" for i in range(9)]
    with pytest.raises(DataError, match=r"9 of 10 images .*gone0.png.*gone2.png \(No such file or directory\), \.\.\."):
        check_images([ramp_png, *paths])
    with pytest.raises(DataError, match="gone0.png"):
        image_size(paths[0])


def test_bytes_after_the_end_of_a_whole_image_are_harmless(ramp_png):
    ramp_png.write_bytes(ramp_png.read_bytes() + b"trailing")
    check_images([ramp_png])
    np.testing.assert_array_equal(read_grey(ramp_png), RAMP)


def test_size_is_width_and_height(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "wide.png")
    assert image_size(tmp_path / "wide.png") == (30, 20)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a"),
        ("a.PNG", "a"),
        ("a.b.jpeg", "a.b"),
        ("a", "a"),
        ("a.DCM", "a"),
        ("a.tiff", "a.tiff"),
        ("x.png.jpg", "x.png"),
    ],
)
def test_image_ids_keep_all_but_the_suffix(name, expected):
    assert image_id(name) == expected


@pytest.mark.parametrize("name", ["", "..", "../a.png", "/etc/a.png", "b/a.png", "..\\a.png"])
def test_names_with_folders_are_refused(name):
    with pytest.raises(DataError, match="bare file name"):
        image_id(name)


def test_paths_out_of_the_root_are_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    assert resolve_inside(root, "a/../b.png") == (root / "b.png").resolve()
    for name in ("../b.png", tmp_path / "b.png", "link/b.png"):
        with pytest.raises(DataError, match="leads out of the data root"):
            resolve_inside(root, name)


def test_images_are_found_by_stem_whatever_the_case_of_the_suffix(tmp_path):
    for name in ["a.png", "b.JPG", "c.d.Jpeg", "notes.txt"]:
        (tmp_path / name).touch()
    assert find_images(tmp_path, [tmp_path]) == {
        "a": str(tmp_path / "a.png"),
        "b": str(tmp_path / "b.JPG"),
        "c.d": str(tmp_path / "c.d.Jpeg"),
    }


def test_two_files_for_one_image_are_refused(tmp_path):
    for name in ["a.png", "a.jpg"]:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="two files for image 'a'"):
        find_images(tmp_path, [tmp_path])


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_out_of_the_root_is_no_image(linked, tmp_path, ramp_png):
    root = tmp_path / "root"
    root.mkdir()
    folder = root / "images"
    if linked == "folder":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        (folder / "a.png").symlink_to(ramp_png)
    with pytest.raises(DataError, match="leads out of the data root"):
        find_images(root, [folder])
