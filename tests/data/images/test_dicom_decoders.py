"""Compressed DICOM files: what is decoded without the extra of another licence, and what is said where it is needed."""

import struct

import numpy as np
import pytest
from fakes_brixia import write_dicom
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless

from lightning_chex.data import DataError
from lightning_chex.data.images import dicom, dicom_header
from lightning_chex.data.images.dicom import check_dicom, read_dicom

VALUES = np.random.default_rng(0).integers(0, 4096, (24, 33)).astype(np.uint16)  # nothing a predictor could foresee
FULL = {"WindowCenter": 2048, "WindowWidth": 4096}  # LINEAR: grey = 255 x / 4095
EXPECTED = np.rint(VALUES / 4095 * 255)


def lossless_jpeg(values: np.ndarray, bits: int) -> bytes:
    """Encode by ITU-T T.81, annex H: the difference to the left neighbour (in the first column to the one above).

    All 17 categories of differences have Huffman codes of five bits.
    """
    rows, columns = values.shape
    signed = values.astype(int)
    predicted = np.hstack([np.vstack([[[1 << bits - 1]], signed[:-1, :1]]), signed[:, :-1]])
    stream = ""
    for difference in (signed - predicted).ravel():
        category = int(abs(difference)).bit_length()
        stream += f"{category:05b}"
        if category:
            extra = difference if difference > 0 else difference + (1 << category) - 1
            stream += f"{int(extra):0{category}b}"
    stream += "1" * (-len(stream) % 8)
    data = bytes(int(stream[i : i + 8], 2) for i in range(0, len(stream), 8)).replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">HBHHBBBB", 11, bits, rows, columns, 1, 1, 0x11, 0)
    table = struct.pack(">HB16B17B", 36, 0, *([0] * 4), 17, *([0] * 11), *range(17))
    scan = struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)  # predictor 1
    return b"\xff\xd8\xff\xc3" + frame + b"\xff\xc4" + table + b"\xff\xda" + scan + data + b"\xff\xd9"


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1], ids=["process 14", "selection value 1"])
def test_lossless_jpeg_gives_the_stored_values_back(tmp_path, syntax):
    size = {"Rows": 24, "Columns": 33, "BitsAllocated": 16}
    path = write_dicom(tmp_path / "x.dcm", lossless_jpeg(VALUES, 12), 12, syntax, **size, **FULL)
    check_dicom(path)
    np.testing.assert_array_equal(read_dicom(path), EXPECTED)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLSNearLossless], ids=["lossless", "near lossless"])
def test_jpeg_ls_needs_no_extra(tmp_path, monkeypatch, syntax):
    path = write_dicom(tmp_path / "x.dcm", VALUES, 12, JPEGLSLossless, True, **FULL)
    header = dicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = syntax  # an error of at most 0 is near lossless too
    header.save_as(path)
    monkeypatch.setattr(dicom_header.get_decoder(syntax), "_available", _only(syntax, "pyjpegls"))
    np.testing.assert_array_equal(read_dicom(path), EXPECTED)


@pytest.mark.parametrize(
    ("syntax", "available"), [(JPEGLossless, ()), (JPEGLosslessSV1, ()), (JPEGExtended12Bit, ("pillow",))]
)
def test_what_needs_the_extra_names_it(tmp_path, monkeypatch, syntax, available):
    size = {"Rows": 24, "Columns": 33, "BitsAllocated": 16}
    path = write_dicom(tmp_path / "x.dcm", lossless_jpeg(VALUES, 12), 12, syntax, **size)
    monkeypatch.setattr(dicom_header.get_decoder(syntax), "_available", _only(syntax, *available))
    for read in (check_dicom, read_dicom):
        with pytest.raises(DataError, match=r"no decoder .*of 12 bits .*'lightning-chex\[dicom-jpeg\]'.*GPL") as told:
            read(path)
        assert "\n" not in str(told.value) and "gdcm" not in str(told.value)


def _only(syntax, *plugins):
    available = dicom_header.get_decoder(syntax)._available
    return {name: available[name] for name in plugins}
