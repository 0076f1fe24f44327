"""Checks of DICOM headers: requirements on a file that holds a readable X-ray; no pixel is decoded."""

import struct
import zlib
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import get_decoder
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from lightning_chex.extras import how_to_install

NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
"""Elements without which no image can be decoded."""

MAX_PIXELS = 2**28
"""Ten times the largest detector."""

SQUARE = 1.02
"""Pixels are square up to this ratio of their sides."""

_BEFORE_META = 128 + 4 + 12  # preamble, prefix, and the element with the length of the meta information
_MOST_BYTES = 2 * MAX_PIXELS + 2**24
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\0\0\0\x0cjP  "
_UNDEFINED_LENGTH = 0xFFFFFFFF


class UnreadableDicom(ValueError):
    """Why a file cannot be read, without a quotation from it."""


def check_header(header: Dataset) -> None:
    """Refuse what is no single grey image of 8 or 16 bits, in a compression that can be decoded here."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise UnreadableDicom("its header names no transfer syntax; replace it with an intact copy")
    if "PixelData" not in header:
        floats = "FloatPixelData" in header or "DoubleFloatPixelData" in header
        raise UnreadableDicom(
            f"it has no pixel data{' of whole numbers' if floats else ''}; remove it from the image folder"
        )
    missing = [name for name in NEEDED if header.get(name) is None]
    if missing:
        raise UnreadableDicom(f"its header lacks {', '.join(missing)}; replace it with an intact copy")
    kind = str(header.PhotometricInterpretation)
    samples = header.get("SamplesPerPixel", 1)
    if kind not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
        known = kind if kind in {standard.value for standard in PhotometricInterpretation} else "unknown colours"
        raise UnreadableDicom(
            f"it is a colour image ({known}, {samples} samples a pixel); an X-ray is MONOCHROME1 or 2"
        )
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnreadableDicom(f"it has {frames} frames; an X-ray has one: export the frame that is meant")
    rows = header.Rows
    columns = header.Columns
    bits = header.BitsAllocated
    stored = header.BitsStored
    if not (rows > 0 and columns > 0 and rows * columns <= MAX_PIXELS):
        raise UnreadableDicom(f"its header says {rows} rows x {columns} columns; replace it with an intact copy")
    if bits not in (8, 16) or not 0 < stored <= bits:
        raise UnreadableDicom(
            f"its header says {stored} bits stored of {bits}; images of up to 8 of 8 or 16 of 16 are read"
        )
    high = header.get("HighBit")
    if high is not None and high != stored - 1:  # what follows would make a picture of the wrong bits
        raise UnreadableDicom(
            f"its header says {stored} bits stored with the highest at {high}: only the lowest bits, up to "
            f"{stored - 1}, are read; convert the file"
        )
    _check_square(header)
    _check_decoder(syntax, stored)


def is_inverted(header: Dataset) -> bool:
    """Whether high values are dark: MONOCHROME1, or an inverse presentation LUT on MONOCHROME2 (PS3.3, C.11.6).

    MONOCHROME1 is inverted once, with or without an inverse presentation LUT, which says the same again (C.8.11.3).
    """
    if header.PhotometricInterpretation == "MONOCHROME1":
        return True
    return str(header.get("PresentationLUTShape") or "").upper() == "INVERSE"


def _check_square(header: Dataset) -> None:
    """Refuse pixels that are not square: shown as squares, they stretch what is on the picture."""
    for name in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"):
        sides = header.get(name)
        if not sides or len(sides) != 2:
            continue
        down, across = (float(side) for side in sides)
        if min(down, across) > 0 and not 1 / SQUARE <= down / across <= SQUARE:
            raise UnreadableDicom(
                f"its pixels are {down / across:.3g} times as high as wide ({name}): resample it to square pixels, and "
                "its boxes and masks with it"
            )


def _check_decoder(syntax: UID, bits: int) -> None:
    """Refuse a compression that nothing here decodes."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableDicom(f"transfer syntax {syntax_name(syntax)} is a video encoding; convert the file") from error
    beyond_pillow = syntax == JPEGExtended12Bit and bits > 8 and decoder.available_plugins == ("pillow",)
    if decoder.is_available and not beyond_pillow:
        return
    remedy = f"{how_to_install('pylibjpeg')} brings one, or convert the file"
    if syntax in (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1):
        remedy = "pip install 'lightning-chex[dicom-jpeg]' brings one (under the GPL-3.0), or convert the file"
    raise UnreadableDicom(f"no decoder for transfer syntax {syntax_name(syntax)} of {bits} bits is installed; {remedy}")


def syntax_name(syntax: UID) -> str:
    """Return the name and number of a transfer syntax, for a message."""
    if not syntax.is_valid:
        return "(damaged)"
    return str(syntax) if syntax.name == syntax else f"{syntax.name} ({syntax})"


def check_length(header: Dataset, file_size: int | None = None) -> None:
    """Refuse uncompressed pixels that are not rows x columns, and with ``file_size`` such as the file does not hold.

    Compressed pixels pass: their end was found when they were read, and their size is known after decoding.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        return
    rows = header.Rows
    columns = header.Columns
    wide = header.BitsAllocated // 8
    element: Any = header.get_item("PixelData", keep_deferred=True)
    length = len(element.value) if element.value is not None else element.length
    if file_size is not None and syntax != DeflatedExplicitVRLittleEndian:
        length = min(length, file_size - element.value_tell)
    surplus = length - rows * columns * wide
    # writers pad, but by less than a row or column, which a wrong header would leave over
    if element.length == _UNDEFINED_LENGTH or not 0 <= surplus < max(2, min(rows, columns) * wide):
        raise UnreadableDicom(
            f"its header says {rows} rows x {columns} columns of {8 * wide} bits, {rows * columns * wide} bytes, "
            f"but it has {length} bytes of pixels; replace it with an intact copy"
        )


def inflates_too_far(path: str | Path) -> bool:
    """Whether a file in the deflated transfer syntax is larger than any image; False for other syntaxes."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    total = 0
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    with open(path, "rb") as file:
        file.seek(_BEFORE_META + meta.FileMetaInformationGroupLength)
        while total <= _MOST_BYTES and (piece := stream.unconsumed_tail or file.read(2**16)):
            total += len(stream.decompress(piece, 2**20))
    return total > _MOST_BYTES


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """Return rows and columns by the header of a JPEG, JPEG-LS or JPEG 2000 stream; None where it has none.

    Example:
        >>> stream_size(bytes.fromhex("ffd8 ffc0 000b 08 0010 0020 01 011100"))
        (16, 32)
    """
    start = stream.find(_J2K_START)
    if start == 0 or (
        start > 0 and stream.startswith(_JP2_START)
    ):  # SIZ: length, capabilities, then the far and the near corner of the image
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return bottom - top, right - left
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        length = struct.unpack_from(">H", stream, at + 2)[0]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:  # start of a frame
            rows, columns = struct.unpack_from(">2H", stream, at + 5)
            return rows, columns
        at += 1 if marker == 0xFF else 2 + length  # fill bytes may stand before a marker
    return None
