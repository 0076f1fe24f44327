"""DICOM files of X-rays to 8-bit grey pictures, as a viewer would first show them.

Of each stored value the lowest ``BitsStored`` bits count; ``data/files/dicom_brightness.py`` makes them a brightness;
MONOCHROME1 is inverted. Every step maps single values, so all of them together are one table of at most 65,536 entries.

Only the elements named here are ever taken from a file: who is on the picture is not among them, so that no message of
ours or of pydicom's can tell.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder, pixel_array
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from lightning_chex.data.errors import DataError
from lightning_chex.data.files.dicom_brightness import brightness_of
from lightning_chex.data.files.dicom_sizes import MAX_PIXELS, inflates_too_far, stream_size

_NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
_OPTIONAL = (
    *("HighBit", "SamplesPerPixel", "NumberOfFrames", "PlanarConfiguration"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "FloatPixelData", "DoubleFloatPixelData", "PixelData"),
)
_UNDEFINED_LENGTH = 0xFFFFFFFF


def is_dicom(path: str | Path) -> bool:
    """Say whether a file carries the mark of DICOM, ``DICM`` after 128 bytes; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: str | Path) -> np.ndarray:
    """Read a DICOM file with one grey image of up to 16 bits.

    Its VOI LUT or else its first window is applied, or where there is none of use, the picture's own range. Pixels of
    the padding value or range take no part in that and become black.

    Returns:
        uint8 (H, W), 0 to 255; black is 0 in MONOCHROME1 too.

    Raises:
        DataError: no DICOM file, damaged, without an image or with one in colour or of several frames, a header that
            does not fit its pixels, or a compression whose decoder is not installed.
    """
    with _telling(path):
        header = _open(path)
        _check_header(header)
        _check_length(header)
        return _render(header, _decode(header))


def dicom_size(path: str | Path) -> tuple[int, int]:
    """Return width and height of the image in a DICOM file, from its header alone.

    Raises:
        DataError: see ``read_dicom``.
    """
    with _telling(path):
        header = _open(path, defer_size=1024)
        _check_header(header)
        return int(header.Columns), int(header.Rows)


def check_dicom(path: str | Path) -> None:
    """Make sure, without decoding, that a DICOM file holds an image this package reads, up to its last byte.

    Raises:
        DataError: see ``read_dicom``.
    """
    with _telling(path):
        header = _open(path, defer_size=1024)
        _check_header(header)
        _check_length(header, os.path.getsize(path))


class _Unreadable(ValueError):
    """Why a file cannot be read, in words of ours."""


@contextmanager
def _telling(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong with a file inside the ``with`` block into a DataError that quotes nothing of it."""
    try:
        yield
    except Exception as error:  # on damaged files pydicom and its decoders raise what they like
        reason = error
        if isinstance(error, OSError) and error.strerror:
            reason = _Unreadable(error.strerror)
        elif not isinstance(error, _Unreadable):  # pydicom's quote what they stumbled over, which may be anything
            reason = _Unreadable(f"its header is damaged ({type(error).__name__}); replace it with an intact copy")
        raise DataError(f"cannot read image {path} as DICOM: {reason}") from reason


def _open(path: str | Path, defer_size: int | None = None) -> Dataset:
    """Read the elements this file names; longer ones than ``defer_size`` bytes only when they are asked for."""
    if os.path.getsize(path) == 0:
        raise _Unreadable("the file is empty; replace it with an intact copy")
    try:
        if inflates_too_far(path):
            raise _Unreadable("it is packed, and holds more than any image; replace it with an intact copy")
        return dcmread(path, specific_tags=[*_NEEDED, *_OPTIONAL], defer_size=defer_size)
    except InvalidDicomError as error:
        raise _Unreadable("it does not have the mark of a DICOM file; replace it with the original") from error


def _check_header(header: Dataset) -> None:
    """Refuse what is no single grey image of 8 or 16 bits, in a compression that can be decoded here."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise _Unreadable("its header names no transfer syntax; replace it with an intact copy")
    if "PixelData" not in header:
        floats = "FloatPixelData" in header or "DoubleFloatPixelData" in header
        raise _Unreadable(
            f"it has no pixel data{' of whole numbers' if floats else ''}; remove it from the image folder"
        )
    missing = [name for name in _NEEDED if header.get(name) is None]
    if missing:
        raise _Unreadable(f"its header lacks {', '.join(missing)}; replace it with an intact copy")
    kind, samples = str(header.PhotometricInterpretation), header.get("SamplesPerPixel", 1)
    if kind not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
        known = kind if kind in {standard.value for standard in PhotometricInterpretation} else "unknown colours"
        raise _Unreadable(f"it is a colour image ({known}, {samples} samples a pixel); an X-ray is MONOCHROME1 or 2")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise _Unreadable(f"it has {frames} frames; an X-ray has one: export the frame that is meant")
    rows, columns, bits, stored = header.Rows, header.Columns, header.BitsAllocated, header.BitsStored
    if not (rows > 0 and columns > 0 and rows * columns <= MAX_PIXELS):
        raise _Unreadable(f"its header says {rows} rows x {columns} columns; replace it with an intact copy")
    if bits not in (8, 16) or not 0 < stored <= bits:
        raise _Unreadable(
            f"its header says {stored} bits stored of {bits}; images of up to 8 of 8 or 16 of 16 are read"
        )
    high = header.get("HighBit")
    if high is not None and high != stored - 1:  # what follows would make a picture of the wrong bits
        raise _Unreadable(
            f"its header says {stored} bits stored with the highest at {high}: only the lowest bits, up to "
            f"{stored - 1}, are read; convert the file"
        )
    _check_decoder(syntax, stored)


def _check_decoder(syntax: UID, bits: int) -> None:
    """Refuse a compression that nothing here decodes."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise _Unreadable(f"transfer syntax {_name(syntax)} is none of still images; convert the file") from error
    beyond_pillow = syntax == JPEGExtended12Bit and bits > 8 and decoder.available_plugins == ("pillow",)
    if decoder.is_available and not beyond_pillow:
        return
    remedy = f"install one of these packages: {'; '.join(decoder.missing_dependencies)}"  # pydicom knows for each
    if syntax in (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1):
        remedy = "pip install 'lightning-chex[dicom-jpeg]' brings one (under the GPL-3.0), or convert the file"
    raise _Unreadable(f"no decoder for transfer syntax {_name(syntax)} of {bits} bits is installed; {remedy}")


def _name(syntax: UID) -> str:
    if not syntax.is_valid:
        return "(damaged)"
    return str(syntax) if syntax.name == syntax else f"{syntax.name} ({syntax})"


def _check_length(header: Dataset, file_size: int | None = None) -> None:
    """Refuse uncompressed pixels that are not rows x columns, and with ``file_size`` such as the file does not hold.

    Compressed pixels pass: their end was found when they were read, and their size is known after decoding.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        return
    rows, columns, wide = header.Rows, header.Columns, header.BitsAllocated // 8
    element: Any = header.get_item("PixelData", keep_deferred=True)
    length = len(element.value) if element.value is not None else element.length
    if file_size is not None and syntax != DeflatedExplicitVRLittleEndian:
        length = min(length, file_size - element.value_tell)
    surplus = length - rows * columns * wide
    # writers pad, but by less than a row or column, which a wrong header would leave over
    if element.length == _UNDEFINED_LENGTH or not 0 <= surplus < max(2, min(rows, columns) * wide):
        raise _Unreadable(
            f"its header says {rows} rows x {columns} columns of {8 * wide} bits, {rows * columns * wide} bytes, "
            f"but it has {length} bytes of pixels; replace it with an intact copy"
        )


def _decode(header: Dataset) -> np.ndarray:
    """Return the values as they are stored, all allocated bits, (H, W)."""
    syntax = header.file_meta.TransferSyntaxUID
    expected = (header.Rows, header.Columns)
    try:
        size = stream_size(get_frame(header.PixelData, 0, number_of_frames=1)) if syntax.is_encapsulated else None
        if size not in (None, expected):  # a decoder would make room for what the stream says
            raise ValueError(f"they are {size[0]} rows x {size[1]} columns")
        values = pixel_array(header, correct_unused_bits=False)  # a padding value may use bits no pixel does
    except Exception as error:  # see _telling
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _Unreadable(
            f"its pixels ({_name(syntax)}, {expected[0]} rows x {expected[1]} columns by its header) cannot be "
            f"decoded: {reason}; replace it with an intact copy"
        ) from error
    if values.shape != expected:
        raise _Unreadable(f"its header says {expected} rows and columns, its pixels are {values.shape}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _render(header: Dataset, values: np.ndarray) -> np.ndarray:
    bits = header.BitsStored
    # the two's complement of a negative value is its row of the table, and bits above those stored are not the image's
    index = values.view(f"u{values.itemsize}") & np.array(2**bits - 1, dtype=f"u{values.itemsize}")
    stored = np.arange(2**bits)
    if header.PixelRepresentation == 1:
        stored[stored >= 2 ** (bits - 1)] -= 2**bits
    padding = _padding(header, values)
    counts = np.bincount(index.ravel() if padding is None else index[~padding], minlength=2**bits)
    if not counts.any():
        raise _Unreadable("all its pixels are padding; remove it from the image folder")
    if not all(np.isfinite(float(header.get(name) or 0)) for name in ("RescaleSlope", "RescaleIntercept")):
        raise _Unreadable("its rescale slope or intercept is no finite number; replace it with an intact copy")
    if header.get("RescaleSlope") is not None and float(header.RescaleSlope) == 0:
        raise _Unreadable("its rescale slope is 0, which leaves no picture; replace it with an intact copy")
    brightness = brightness_of(header, stored, counts)
    if header.PhotometricInterpretation == "MONOCHROME1":
        brightness = 1 - brightness
    grey = np.rint(brightness * 255).astype(np.uint8)[index]
    if padding is not None:
        grey[padding] = 0
    return grey


def _padding(header: Dataset, values: np.ndarray) -> np.ndarray | None:
    """Say which pixels are filled up, bool (H, W); None if the header knows of none."""
    first = header.get("PixelPaddingValue")
    if first is None:
        return None
    last = header.get("PixelPaddingRangeLimit")
    # the header may give a signed value as the unsigned number of the same bits
    ends = [np.array(end).astype(values.dtype) for end in (first, first if last is None else last)]
    return (values >= min(ends)) & (values <= max(ends))
