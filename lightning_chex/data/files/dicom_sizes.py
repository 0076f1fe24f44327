"""How large a DICOM file becomes when it is read: asked before, as a few bytes may stand for more than the memory."""

import struct
import zlib
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

MAX_PIXELS = 2**28
"""Ten times the largest detector: whoever claims more lies."""

_BEFORE_META = 128 + 4 + 12  # preamble, mark, and the element that says how long the file's meta information is
_MOST_BYTES = 2 * MAX_PIXELS + 2**24
_J2K_START, _JP2_START = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "


def inflates_too_far(path: str | Path) -> bool:
    """Say whether a file in the deflated transfer syntax holds more than any image; False for other syntaxes."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    total, stream = 0, zlib.decompressobj(-zlib.MAX_WBITS)
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
        marker, length = stream[at + 1], struct.unpack_from(">H", stream, at + 2)[0]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:  # start of a frame
            rows, columns = struct.unpack_from(">2H", stream, at + 5)
            return rows, columns
        at += 1 if marker == 0xFF else 2 + length  # fill bytes may stand before a marker
    return None
