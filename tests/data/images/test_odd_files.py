"""PNG and JPEG files as they are found in the wild: the right pixels, or one clear error before training.

Of DICOM see test_dicom.py (bits, sign, windows, LUTs, polarity, padding, overlays, frames, colour, byte order, damage)
and test_dicom_decoders.py (compressions); of damaged PNG and JPEG test_images.py; of tables test_table.py.
"""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lightning_chex.data import DataError
from lightning_chex.data.images.images import check_images, image_size, read_grey

RAMP = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps, of the seven passes of Adam7 (PNG specification, section 8.2)."""


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, depth: int = 8, interlaced: bool = False, more: bytes = b"") -> bytes:
    """A grey PNG, written by hand: Pillow writes none that is interlaced."""
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, 0, 0, 0, interlaced)
    parts = [values[y::down, x::across] for y, x, down, across in PASSES] if interlaced else [values]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for part in parts if part.size for row in part)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def write_png(**options):
    return lambda path: path.write_bytes(png(RAMP, **options))


def saved(mode: str = "L", **options):
    return lambda path: Image.fromarray(RAMP).convert(mode).save(path, **options)


def turned(path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, as a phone writes it
    Image.fromarray(RAMP).save(path, exif=exif, quality=98)


def black_plate(path) -> None:
    """CMYK with all of the grey in its black plate, as a printer's program writes it."""
    none = np.zeros_like(RAMP)
    Image.merge("CMYK", [Image.fromarray(own) for own in (none, none, none, 255 - RAMP)]).save(path, quality=98)


DEEP = RAMP.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("name", "write", "tolerance"),
    [
        ("interlaced.png", write_png(interlaced=True), 0),
        ("interlaced 16 bits.png", lambda path: path.write_bytes(png(DEEP, 16, interlaced=True)), 0),
        ("16 bits.png", lambda path: path.write_bytes(png(DEEP, 16)), 0),
        (
            "gamma.png",
            write_png(more=chunk(b"gAMA", struct.pack(">I", 45455))),
            0,
        ),  # as stored, as viewers of X-rays do
        ("text.png", write_png(more=chunk(b"tEXt", b"Patient\0Doe^Jan")), 0),
        ("a PNG called.jpg", lambda path: saved(format="PNG")(path), 0),
        ("a JPEG called.png", lambda path: saved(format="JPEG", quality=98)(path), 4),
        ("colour.jpg", saved("RGB", quality=98), 4),
        ("progressive.jpg", saved(quality=98, progressive=True), 4),
        ("CMYK.jpg", black_plate, 6),
        ("turned by EXIF.jpg", turned, 4),  # as stored: boxes are given on the stored pixels
        ("UPPER.PNG", write_png(), 0),
    ],
)
def test_the_right_pixels(tmp_path, name, write, tolerance):
    path = tmp_path / name
    write(path)
    check_images([path])
    found = read_grey(path)
    assert found.dtype == np.uint8 and image_size(path) == (20, 12)
    assert np.abs(found.astype(int) - RAMP).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("scan.png", lambda path: saved(format="TIFF")(path)),
        ("scan.jpg", lambda path: saved(format="BMP")(path)),
        ("web.png", lambda path: saved(format="WEBP")(path)),
        ("page.png", lambda path: path.write_text("<html>404 not found</html>" * 20)),
        (
            "link.png",
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        ),
        ("no end.png", lambda path: path.write_bytes(png(RAMP)[:-30])),
        ("no end.jpg", lambda path: (saved(quality=98)(path), path.write_bytes(path.read_bytes()[:-150]))),
        ("zeros.png", lambda path: path.write_bytes(bytes(4096))),
    ],
)
def test_one_clear_error_before_training(tmp_path, name, write):
    path, good = tmp_path / name, tmp_path / "good.png"
    write(path)
    write_png()(good)
    with pytest.raises(DataError, match=f"1 of 2 images cannot be read: .*{name}"):
        check_images([good, path])
    with pytest.raises(DataError, match=name):
        read_grey(path)


def test_a_list_of_many_files_is_checked_whole(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    write_png()(good)
    bad.write_bytes(b"")
    paths = [good] * 1000
    check_images(paths)
    paths[3] = paths[777] = paths[-1] = bad
    with pytest.raises(DataError, match="3 of 1000 images cannot be read"):
        check_images(paths)
