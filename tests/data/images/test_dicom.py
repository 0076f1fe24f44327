import io
import math

import numpy as np
import pydicom.config
import pytest
from fakes_brixia import lut, write_dicom
from PIL import Image
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from lightning_chex.data import DataError
from lightning_chex.data.images import dicom, dicom_header
from lightning_chex.data.images.dicom import check_dicom, dicom_size, is_dicom, read_dicom
from lightning_chex.data.images.images import check_images, find_images, image_size, read_grey

RAMP = np.arange(0, 4096, 4, dtype=np.uint16).reshape(32, 32)
FULL = {"WindowCenter": 2048, "WindowWidth": 4096}  # LINEAR: grey = 255 x / 4095, by PS3.3 C.11.2.1.2.1


def full_window(values: np.ndarray) -> np.ndarray:
    """What the window 2048 / 4096 makes of 12-bit values."""
    return np.rint((values.astype(float) - 2047.5) / 4095 * 255 + 127.5).clip(0, 255)


@pytest.mark.parametrize(
    ("syntax", "compress"),
    [
        (ExplicitVRLittleEndian, False),
        (ImplicitVRLittleEndian, False),
        (DeflatedExplicitVRLittleEndian, False),
        (RLELossless, True),
        (JPEG2000Lossless, True),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_every_transfer_syntax_and_polarity_reads_alike(tmp_path, syntax, compress, kind):
    path = write_dicom(tmp_path / "x.dcm", RAMP, 12, syntax, compress, PhotometricInterpretation=kind, **FULL)
    expected = full_window(RAMP)
    if kind == "MONOCHROME1":
        expected = 255 - expected
    out = read_dicom(path)
    assert out.dtype == np.uint8
    np.testing.assert_allclose(out, expected, atol=0)
    check_dicom(path)
    assert dicom_size(path) == (32, 32)


def test_big_endian_and_baseline_jpeg(tmp_path):
    swapped = write_dicom(tmp_path / "big.dcm", RAMP, 12, ExplicitVRBigEndian, **FULL)
    header = pydicom.dcmread(swapped)
    header.PixelData = RAMP.astype(">u2").tobytes()
    header.save_as(swapped)
    np.testing.assert_array_equal(read_dicom(swapped), full_window(RAMP))
    grey = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=98)
    path = write_dicom(
        *(tmp_path / "jpeg.dcm", stream.getvalue(), 8, JPEGBaseline8Bit),
        **{"Rows": 64, "Columns": 64, "WindowCenter": 128, "WindowWidth": 256},
    )
    np.testing.assert_allclose(read_dicom(path), grey.astype(float), atol=3)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("compress", [False, True])
def test_stored_bits_and_sign(tmp_path, bits, signed, compress):
    low = -(2 ** (bits - 1)) if signed else 0
    kind = ("i" if signed else "u") + ("1" if bits == 8 else "2")
    values = np.linspace(low, low + 2**bits - 1, 1024).astype(int).reshape(32, 32)
    path = write_dicom(
        *(tmp_path / "x.dcm", values.astype(kind), bits, JPEG2000Lossless if compress else ExplicitVRLittleEndian),
        compress,
        **{"WindowCenter": low + 2 ** (bits - 1), "WindowWidth": 2**bits},
    )
    np.testing.assert_array_equal(read_dicom(path), np.rint((values - low) / (2**bits - 1) * 255))


def test_bits_above_those_stored_are_not_the_images(tmp_path):
    overlay = RAMP | np.where(np.arange(32) % 3 == 0, 0x8000, 0).astype(np.uint16)  # as old machines drew on images
    np.testing.assert_array_equal(read_dicom(write_dicom(tmp_path / "x.dcm", overlay, **FULL)), full_window(RAMP))
    signed = (RAMP.astype(np.int32) - 2048).astype(np.int16) & 0x0FFF  # 12 bits of a sign that nobody extended
    path = write_dicom(tmp_path / "y.dcm", signed, WindowCenter=0, WindowWidth=4096)
    np.testing.assert_array_equal(read_dicom(path), full_window(RAMP))


def smooth(bits: int) -> np.ndarray:
    """A picture whose values fill so many bits without jumps."""
    y, x = np.mgrid[:32, :32]
    return np.rint((2**bits - 1) * (x + y) / 62).astype(np.uint16)


@pytest.mark.parametrize("more", [1, 2, 4])
def test_values_of_more_bits_than_are_stored_are_named_and_not_wrapped(tmp_path, more):
    path = write_dicom(tmp_path / "x.dcm", smooth(12 + more), 12, **FULL)
    with pytest.raises(DataError, match=f"says 12 bits stored, but its values go from 0 to {2 ** (12 + more) - 1}"):
        read_dicom(path)
    padded = np.pad(smooth(12), 4, constant_values=65535)  # which is no value
    read_dicom(write_dicom(tmp_path / "y.dcm", padded, 12, PixelPaddingValue=65535, **FULL))


@pytest.mark.parametrize("bit", [12, 13, 15])
def test_an_overlay_of_text_in_a_bit_above_those_stored_is_left_out(tmp_path, bit):
    overlay = np.zeros((32, 32), np.uint16)
    overlay[20:26, 4:28:3] = 1 << bit
    path = write_dicom(tmp_path / "x.dcm", smooth(12) | overlay, 12, **FULL)
    np.testing.assert_array_equal(read_dicom(path), full_window(smooth(12)))


@pytest.mark.parametrize(
    ("kind", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_an_inverse_presentation_inverts_once(tmp_path, kind, shape, inverted):
    more = {} if shape is None else {"PresentationLUTShape": shape}
    path = write_dicom(tmp_path / "x.dcm", RAMP, PhotometricInterpretation=kind, **more, **FULL)
    expected = full_window(RAMP)
    np.testing.assert_array_equal(read_dicom(path), 255 - expected if inverted else expected)


@pytest.mark.parametrize(
    ("name", "sides", "words"),
    [
        ("PixelAspectRatio", [2, 1], "2 times as high as wide"),
        ("PixelAspectRatio", [1, 2], "0.5 times"),
        ("PixelSpacing", [0.2, 0.1], "2 times"),
        ("ImagerPixelSpacing", [0.143, 0.139], "1.03 times"),
        ("PixelAspectRatio", [1, 1], None),
        ("PixelAspectRatio", [143, 143], None),
        ("PixelSpacing", [0.139, 0.14], None),
        ("PixelSpacing", [0, 0.1], None),
    ],
)
def test_pixels_that_are_not_square_are_refused_before_any_is_decoded(tmp_path, name, sides, words):
    path = write_dicom(tmp_path / "x.dcm", RAMP, **{name: sides}, **FULL)
    if words is None:
        np.testing.assert_array_equal(read_dicom(path), full_window(RAMP))
        return
    for read in (check_dicom, dicom_size, read_dicom):
        with pytest.raises(DataError, match=f"{words}.*{name}.*resample it to square pixels"):
            read(path)


@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (None, 0), (1, None)])
def test_an_empty_rescaling_is_none(tmp_path, slope, intercept):
    path = write_dicom(tmp_path / "x.dcm", RAMP, **FULL)
    header = pydicom.dcmread(path)
    header.RescaleSlope, header.RescaleIntercept = slope, intercept
    header.save_as(path)
    assert header["RescaleSlope"].is_empty == (slope is None)
    np.testing.assert_array_equal(read_dicom(path), full_window(RAMP))


def test_rescale_goes_before_the_window(tmp_path):
    path = write_dicom(
        tmp_path / "x.dcm", RAMP, RescaleSlope="0.5", RescaleIntercept="-100", WindowCenter="900", WindowWidth="1001"
    )
    physical = RAMP * 0.5 - 100
    expected = np.clip((physical - 899.5) / 1000 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(read_dicom(path), np.rint(expected))
    falling = write_dicom(
        tmp_path / "y.dcm", RAMP, RescaleSlope="-1", RescaleIntercept="4095", WindowCenter="2048", WindowWidth="4096"
    )
    np.testing.assert_array_equal(read_dicom(falling), full_window(4095 - RAMP.astype(int)))


@pytest.mark.parametrize("bits", [8, 16])
def test_modality_lut(tmp_path, bits):
    entries = [round((2**bits - 1) * (i / 4095) ** 2) for i in range(4096)]
    path = write_dicom(
        *(tmp_path / "x.dcm", RAMP),
        ModalityLUTSequence=[lut(0, bits, entries)],
        WindowCenter=2 ** (bits - 1),
        WindowWidth=2**bits,
    )
    expected = np.array(entries)[RAMP] / (2**bits - 1) * 255
    np.testing.assert_array_equal(read_dicom(path), np.rint(expected))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_voi_lut_wins_over_the_window_and_holds_its_ends(tmp_path, bits):
    entries = [round((2**bits - 1) * math.sqrt(i / 2999)) for i in range(3000)]
    path = write_dicom(tmp_path / "x.dcm", RAMP, VOILUTSequence=[lut(500, bits, entries)], **FULL)
    expected = np.array(entries)[np.clip(RAMP.astype(int) - 500, 0, 2999)] / (2**bits - 1) * 255
    np.testing.assert_array_equal(read_dicom(path), np.rint(expected))


def test_voi_lut_as_words_and_as_bytes(tmp_path):
    for name, bits, kind in [("words", 10, "<u2"), ("bytes", 8, "u1")]:
        entries = np.linspace(0, 2**bits - 1, 4096).astype(int)
        item = lut(0, bits, [0])
        item.LUTDescriptor = [4096, 0, bits]
        item.add_new("LUTData", "OW", entries.astype(kind).tobytes())
        path = write_dicom(tmp_path / f"{name}.dcm", RAMP, VOILUTSequence=[item])
        np.testing.assert_array_equal(read_dicom(path), np.rint(entries[RAMP] / (2**bits - 1) * 255))


@pytest.mark.parametrize(
    ("function", "by_hand"),
    [
        ("LINEAR", lambda x: np.clip((x - 1999.5) / 1500 + 0.5, 0, 1)),
        ("LINEAR_EXACT", lambda x: np.clip((x - 2000) / 1501 + 0.5, 0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 2000) / 1501))),
    ],
)
def test_window_functions_and_the_first_of_several_windows(tmp_path, function, by_hand):
    path = write_dicom(
        *(tmp_path / "x.dcm", RAMP),
        **{"VOILUTFunction": function, "WindowCenter": ["2000", "99"], "WindowWidth": ["1501", "7"]},
    )
    np.testing.assert_array_equal(read_dicom(path), np.rint(255 * by_hand(RAMP.astype(float))))


def own_range(values: np.ndarray, tails: float = 0.005) -> np.ndarray:
    """The picture's own range: at most this share of the pixels below and above."""
    line = np.sort(values.ravel().astype(float))
    skip = int(len(line) * tails)
    low, high = line[skip], line[-1 - skip]
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": "2000", "WindowWidth": "0"},
        {"WindowCenter": "2000", "WindowWidth": "-5"},
        {"WindowCenter": "128", "WindowWidth": "256"},  # left behind by an 8-bit copy: shows next to nothing
        {"WindowCenter": "90000", "WindowWidth": "100"},
        {"WindowCenter": "2000", "WindowWidth": "4000", "VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": [lut(0, 12, [7] * 4096)]},
    ],
    ids=["none", "empty", "zero", "negative", "8-bit", "outside", "function", "flat-lut"],
)
def test_without_a_sound_window_the_pictures_own_range_is_shown(tmp_path, window):
    values = RAMP // 2 + 300
    values.flat[:2] = 4095, 0  # a dead and a hot pixel do not set the range
    path = write_dicom(tmp_path / "x.dcm", values, **window)
    np.testing.assert_array_equal(read_dicom(path), own_range(values))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_padding_is_black_and_takes_no_part_in_the_range(tmp_path, kind, signed):
    values = RAMP.astype(np.int16 if signed else np.uint16) // 4 + 1000
    padded = np.pad(values, 8, constant_values=-2000 if signed else 4000)
    padded[0, :5] = -1990 if signed else 3990
    ends = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990}
    if not signed:
        ends = {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 3990}
    expected = own_range(values)
    if kind == "MONOCHROME1":
        expected = 255 - expected
    path = write_dicom(tmp_path / "x.dcm", padded, PhotometricInterpretation=kind, **ends)
    np.testing.assert_array_equal(read_dicom(path), np.pad(expected, 8))


def test_one_padding_value_even_where_its_bits_are_not_stored_ones(tmp_path):
    padded = np.pad(RAMP, 4, constant_values=65535)
    path = write_dicom(tmp_path / "x.dcm", padded, PixelPaddingValue=65535, **FULL)
    np.testing.assert_array_equal(read_dicom(path), np.pad(full_window(RAMP), 4))


def test_an_image_of_one_value_is_read(tmp_path):
    out = read_dicom(write_dicom(tmp_path / "x.dcm", np.full((4, 6), 77, dtype=np.uint16)))
    assert out.shape == (4, 6) and len(np.unique(out)) == 1


def cut(path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def lengthen(path) -> None:
    """Let the element Columns hold seven bytes more; pydicom's message quotes them."""
    content = path.read_bytes()
    columns = b"\x28\x00\x11\x00US"
    assert content.count(columns + b"\x02\x00 \x00") == 1
    path.write_bytes(content.replace(columns + b"\x02\x00 \x00", columns + b"\x09\x00 \x00Doe^Jan"))


def write_bad(path, kind: str) -> None:
    """Write one bad file."""
    grey8 = RAMP.astype(np.uint8)
    half = {"Rows": 16}
    bad = {
        "no pixels": lambda: write_dicom(path, RAMP, PixelData=None),
        "too many rows": lambda: write_dicom(path, RAMP, Rows=33),
        "too few rows": lambda: write_dicom(path, RAMP, Rows=31),
        "too few columns": lambda: write_dicom(path, RAMP, Columns=31),
        "other width of pixels": lambda: write_dicom(path, RAMP, BitsAllocated=8, BitsStored=8, HighBit=7),
        "no rows": lambda: write_dicom(path, RAMP, Rows=0),
        "lacks bits": lambda: write_dicom(path, RAMP, BitsStored=None),
        "more bits than there are": lambda: write_dicom(path, RAMP, BitsStored=17),
        "frames": lambda: write_dicom(path, RAMP, NumberOfFrames=2, **half),
        "colour": lambda: write_dicom(path, grey8, 8, SamplesPerPixel=3, PhotometricInterpretation="RGB"),
        "palette": lambda: write_dicom(path, grey8, 8, PhotometricInterpretation="PALETTE COLOR"),
        "film": lambda: write_dicom(path, grey8.tobytes(), 8, MPEG2MPML, Rows=8, Columns=32),
        "junk stream": lambda: write_dicom(path, b"no jpeg at all..", 8, JPEGBaseline8Bit, Rows=8, Columns=32),
        "rle rows": lambda: write_dicom(path, RAMP, 12, RLELossless, True, Rows=33),
        "j2k rows": lambda: write_dicom(path, RAMP, 12, JPEG2000Lossless, True, Rows=33),
        "high bit": lambda: write_dicom(path, RAMP << 4, HighBit=15),
        "slope": lambda: write_dicom(path, RAMP, RescaleSlope="1e999", RescaleIntercept="0"),
        "no slope": lambda: write_dicom(path, RAMP, RescaleSlope="0", RescaleIntercept="0"),
        "padding": lambda: write_dicom(path, RAMP, PixelPaddingValue=0, PixelPaddingRangeLimit=4095),
        "damaged length": lambda: lengthen(write_dicom(path, RAMP)),
        "text": lambda: path.write_text("no picture, but a text that is longer than the preamble of a DICOM file" * 4),
        "empty": path.touch,
        "cut": lambda: cut(write_dicom(path, RAMP), -100),
        "cut header": lambda: cut(write_dicom(path, RAMP), 400),
        "cut rle": lambda: cut(write_dicom(path, RAMP, 12, RLELossless, True), -100),
        "cut deflated": lambda: cut(write_dicom(path, RAMP, 12, DeflatedExplicitVRLittleEndian), -100),
        "missing": lambda: None,
    }
    bad[kind]()


@pytest.mark.parametrize(
    ("kind", "words", "seen_before"),
    [
        ("no pixels", "has no pixel data", True),
        ("too many rows", "says 33 rows x 32 columns of 16 bits, 2112 bytes, but it has 2048", True),
        ("too few rows", "says 31 rows x 32 columns", True),
        ("too few columns", "says 32 rows x 31 columns", True),
        ("other width of pixels", "of 8 bits, 1024 bytes, but it has 2048", True),
        ("no rows", "says 0 rows x 32 columns", True),
        ("lacks bits", "lacks BitsStored", True),
        ("more bits than there are", "17 bits stored of 16", True),
        ("high bit", "12 bits stored with the highest at 15: only the lowest bits, up to 11", True),
        ("frames", "2 frames", True),
        ("colour", r"colour image \(RGB, 3 samples", True),
        ("palette", "colour image", True),
        ("film", "MPEG2 Main Profile .* is a video encoding", True),
        ("junk stream", "pixels .JPEG Baseline .*8 rows x 32 columns.* cannot be decoded", False),
        ("rle rows", "RLE Lossless .*33 rows", False),
        ("j2k rows", "JPEG 2000 .*33 rows", False),
        ("slope", "rescale slope or intercept", False),
        ("no slope", "rescale slope is 0", False),
        ("padding", "all its pixels are padding", False),
        ("damaged length", "header is damaged", True),
        ("text", "does not have the mark of a DICOM file", True),
        ("empty", "empty", True),
        ("cut", "has 1948 bytes", True),
        ("cut header", "no pixel data|cannot", True),
        ("cut rle", "no pixel data|header is damaged", True),
        ("cut deflated", "header is damaged", True),
        ("missing", "No such file", True),
    ],
)
def test_bad_files_are_named_without_a_word_on_the_patient(tmp_path, caplog, recwarn, kind, words, seen_before):
    path = tmp_path / "bad.dcm"
    write_bad(path, kind)
    recwarn.clear()
    with pytest.raises(DataError, match=f"(?s)cannot read image .*bad.dcm.*({words})") as told:
        read_grey(path)
    said = [str(told.value), caplog.text, *(str(warning.message) for warning in recwarn)]
    assert "\n" not in said[0]
    if seen_before:
        with pytest.raises(DataError, match="1 of 1 images cannot be read: .*bad.dcm") as told:
            check_images([path])
        said.append(str(told.value))
        assert "None" not in said[-1]
    assert not any("Doe" in text or "Jane" in text or "4711" in text for text in said)


def test_a_missing_decoder_names_the_compression_and_what_to_install(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "x.dcm", b"\xff\xd8 stream", 8, JPEGLSLossless, Rows=8, Columns=32)
    decoder = dicom_header.get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setattr(decoder, "_unavailable", {"pyjpegls": ("numpy", "pyjpegls>=1.2")})
    with pytest.raises(
        DataError, match="JPEG-LS Lossless .*is installed; pip install 'lightning-chex.dicom.' brings one"
    ):
        read_dicom(path)


def test_files_are_known_by_suffix_or_by_their_mark(tmp_path):
    for name in ("a.dcm", "b.DCM", "1.2.840.99"):
        write_dicom(tmp_path / name, RAMP, **FULL)
    (tmp_path / "notes.txt").write_text("no image" * 40)
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "c.png")
    found = find_images(tmp_path, [tmp_path])
    assert set(found) == {"a", "b", "1.2.840.99", "c"}
    for name in ("a", "b", "1.2.840.99"):
        np.testing.assert_array_equal(read_grey(found[name]), full_window(RAMP))
        assert image_size(found[name]) == (32, 32)
    check_images(list(found.values()))
    assert is_dicom(found["a"]) and not is_dicom(found["c"]) and not is_dicom(tmp_path / "gone")


def test_who_is_on_the_picture_is_never_read(tmp_path):
    header = dicom._open(write_dicom(tmp_path / "x.dcm", RAMP))
    assert "Rows" in header and "PatientName" not in header and "PatientID" not in header
