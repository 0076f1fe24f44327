"""The check of image files before a training: headers of all, and a decoded sample."""

import struct
import zlib

import numpy as np
import pytest
from fakes_brixia import write_dicom
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from lightning_chex.data import DataError
from lightning_chex.data.images import images
from lightning_chex.data.images.images import check_images, examine, read_grey


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(path, width, height):
    """A PNG whose header states a size that its few pixels do not have."""
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b""))
    return path


def whole(path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    return path


def test_a_size_that_no_decoder_takes_is_found_in_the_header(tmp_path):
    path = png_of(tmp_path / "large.png", 2**20, 2**20)
    with pytest.raises(DataError, match="1 of 1 images cannot be read: .*large.png .its header says 1048576 x 1048576"):
        check_images([path])
    with pytest.raises(DataError):
        read_grey(path)  # a training would have stopped here


def test_the_size_of_a_jpeg_is_found_in_its_header(tmp_path):
    path = whole(tmp_path / "a.jpg")
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">2H", 65535, 65535)
    path.write_bytes(content)
    with pytest.raises(DataError, match="its header says 65535 x 65535"):
        check_images([path])


def test_a_jpeg_with_a_long_profile_before_its_size_passes(tmp_path):
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    picture.save(tmp_path / "a.jpg", icc_profile=bytes(200_000))
    check_images([tmp_path / "a.jpg"])


def test_pixels_that_cannot_be_decoded_are_found_where_a_file_is_decoded(tmp_path):
    path = png_of(tmp_path / "short.png", 64, 64)
    with pytest.raises(DataError, match="1 of 2 images cannot be read: .*short.png"):
        check_images([whole(tmp_path / "a.png"), path])


def test_a_dicom_stream_that_cannot_be_decoded_is_found(tmp_path):
    stream = b"\xff\x4f\xff\x51" + bytes(40)
    write_dicom(tmp_path / "a.dcm", stream, 12, JPEG2000Lossless, Rows=8, Columns=8, BitsAllocated=16)
    with pytest.raises(DataError, match="1 of 1 images cannot be read: .*a.dcm"):
        check_images([tmp_path / "a.dcm"])


def test_dicom_values_of_more_bits_than_are_stored_are_found(tmp_path):
    values = np.linspace(0, 2**14 - 1, 64 * 64).reshape(64, 64).astype(np.uint16)
    write_dicom(tmp_path / "a.dcm", values, 12)
    with pytest.raises(DataError, match="12 bits stored, but its values go from 0 to 16383"):
        check_images([tmp_path / "a.dcm"])


def test_the_sample_is_spread_and_holds_one_of_each_format(tmp_path, monkeypatch):
    decoded = []

    def spy(path):
        decoded.append(path.name)
        return read_grey(path)

    paths = [whole(tmp_path / f"{number:03}.png") for number in range(100)]
    paths.insert(41, whole(tmp_path / "only.jpg"))
    write_dicom(tmp_path / "only.dcm", np.zeros((8, 8), np.uint16))
    paths.insert(63, tmp_path / "only.dcm")
    monkeypatch.setattr(images, "read_grey", spy)
    found = examine(paths)
    assert found.decoded == len(decoded) == len(set(decoded))
    assert images.DECODED <= found.decoded <= images.DECODED + 3
    assert {"only.jpg", "only.dcm", "000.png", "099.png"} <= set(decoded)
    numbers = sorted(int(name[:3]) for name in decoded if name[:3].isdigit())
    assert max(np.diff(numbers)) <= 5  # spread evenly over the list


def test_problems_are_told_by_place_and_nothing_is_said_of_an_empty_list(tmp_path):
    (tmp_path / "empty.png").touch()
    found = examine([whole(tmp_path / "a.png"), tmp_path / "empty.png", tmp_path / "none.png"])
    assert list(found.problems) == [1, 2] and "empty" in found.problems[1]
    assert examine([]).problems == {}
