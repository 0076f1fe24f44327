"""DICOM files of X-rays to 8-bit grey pictures, as a viewer would first show them.

The lowest ``BitsStored`` bits of each stored value are mapped to brightness (``data/files/dicom_brightness.py``), and
MONOCHROME1 is inverted, by one lookup table of at most 65,536 entries.

Only the elements named here are read from a file. The patient is not among them, so no error message can name one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.dicom_brightness import brightness_of
from lightning_chex.data.images.dicom_header import (
    NEEDED,
    UnreadableDicom,
    check_header,
    check_length,
    inflates_too_far,
    is_inverted,
    stream_size,
    syntax_name,
)

_OPTIONAL = (
    *("HighBit", "SamplesPerPixel", "NumberOfFrames", "PlanarConfiguration"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth", "PresentationLUTShape"),
    *("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "FloatPixelData", "DoubleFloatPixelData", "PixelData"),
)


def is_dicom(path: str | Path) -> bool:
    """Say whether a file has the prefix of DICOM, ``DICM`` after 128 bytes; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: str | Path) -> np.ndarray:
    """Read a DICOM file with one grey image of up to 16 bits.

    Its VOI LUT or else its first window is applied; without a usable one, the range of the image. Pixels of the padding
    value or range are excluded from that and become black.

    Returns:
        uint8 (H, W), 0 to 255; black is 0 in MONOCHROME1, and with an inverse presentation LUT, too.

    Raises:
        DataError: no DICOM file, damaged, without an image or with one in colour or of several frames, pixels that are
            not square, a header that does not fit its pixels, or a compression whose decoder is not installed.
    """
    with _as_data_error(path):
        header = _open(path)
        check_header(header)
        check_length(header)
        return _render(header, _decode(header))


def dicom_size(path: str | Path) -> tuple[int, int]:
    """Return width and height of the image in a DICOM file, from its header alone.

    Raises:
        DataError: see ``read_dicom``.
    """
    with _as_data_error(path):
        header = _open(path, defer_size=1024)
        check_header(header)
        return int(header.Columns), int(header.Rows)


def check_dicom(path: str | Path) -> str:
    """Check, without decoding, that a DICOM file holds a complete image that can be read.

    Returns:
        Name of its transfer syntax.

    Raises:
        DataError: see ``read_dicom``.
    """
    with _as_data_error(path):
        header = _open(path, defer_size=1024)
        check_header(header)
        check_length(header, os.path.getsize(path))
        return syntax_name(header.file_meta.TransferSyntaxUID)


@contextmanager
def _as_data_error(path: str | Path) -> Iterator[None]:
    """Turn every error inside the ``with`` block into a DataError that quotes nothing of the file."""
    try:
        yield
    except Exception as error:  # pydicom and its decoders raise any type on damaged files
        reason = error
        if isinstance(error, OSError) and error.strerror:
            reason = UnreadableDicom(error.strerror)
        elif not isinstance(error, UnreadableDicom):  # pydicom's messages quote elements, which may name a patient
            reason = UnreadableDicom(f"its header is damaged ({type(error).__name__}); replace it with an intact copy")
        raise DataError(f"cannot read image {path} as DICOM: {reason}") from reason


def _open(path: str | Path, defer_size: int | None = None) -> Dataset:
    """Read the elements named here; those longer than ``defer_size`` bytes when first used."""
    if os.path.getsize(path) == 0:
        raise UnreadableDicom("the file is empty; replace it with an intact copy")
    try:
        if inflates_too_far(path):
            raise UnreadableDicom("its decompressed size exceeds the limit; replace it with an intact copy")
        return dcmread(path, specific_tags=[*NEEDED, *_OPTIONAL], defer_size=defer_size)
    except InvalidDicomError as error:
        raise UnreadableDicom("it does not have the mark of a DICOM file; replace it with the original") from error


def _decode(header: Dataset) -> np.ndarray:
    """Return the values as they are stored, all allocated bits, (H, W)."""
    syntax = header.file_meta.TransferSyntaxUID
    expected = (header.Rows, header.Columns)
    try:
        size = stream_size(get_frame(header.PixelData, 0, number_of_frames=1)) if syntax.is_encapsulated else None
        if size not in (None, expected):  # a decoder would allocate the size in the stream
            raise ValueError(f"they are {size[0]} rows x {size[1]} columns")
        values = pixel_array(header, correct_unused_bits=False)  # a padding value may use bits no pixel does
    except Exception as error:  # see _as_data_error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnreadableDicom(
            f"its pixels ({syntax_name(syntax)}, {expected[0]} rows x {expected[1]} columns by its header) cannot be "
            f"decoded: {reason}; replace it with an intact copy"
        ) from error
    if values.shape != expected:
        raise UnreadableDicom(f"its header says {expected} rows and columns, its pixels are {values.shape}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _render(header: Dataset, values: np.ndarray) -> np.ndarray:
    bits = header.BitsStored
    # the two's complement of a negative value is its row of the table, and bits above those stored are not the image's
    index = values.view(f"u{values.itemsize}") & np.array(2**bits - 1, dtype=f"u{values.itemsize}")
    stored = np.arange(2**bits)
    if header.PixelRepresentation == 1:
        stored[stored >= 2 ** (bits - 1)] -= 2**bits
    padding = _padding(header, values)
    _check_bits(values, stored[index], padding, bits)
    counts = np.bincount(index.ravel() if padding is None else index[~padding], minlength=2**bits)
    if not counts.any():
        raise UnreadableDicom("all its pixels are padding; remove it from the image folder")
    _check_rescaling(header)
    brightness = brightness_of(header, stored, counts)
    if is_inverted(header):
        brightness = 1 - brightness
    grey = np.rint(brightness * 255).astype(np.uint8)[index]
    if padding is not None:
        grey[padding] = 0
    return grey


def _check_bits(values: np.ndarray, stored: np.ndarray, padding: np.ndarray | None, bits: int) -> None:
    """Refuse values that need more bits than the header says are stored.

    Bits above those stored may be an overlay, or a sign: without them the picture is as smooth as before, or smoother.
    Where they are part of the values, it jumps wherever these pass the largest one.
    """
    whole = values.astype(np.int64)
    if (whole == stored).all():
        return
    kept = np.ones(values.shape, bool) if padding is None else ~padding
    rough = []
    for own in (whole, stored):
        jumps = [np.abs(np.diff(own, axis=axis)) for axis in (0, 1)]
        inside = [kept[1:] & kept[:-1], kept[:, 1:] & kept[:, :-1]]
        rough.append(sum(int(jump[where].sum()) for jump, where in zip(jumps, inside, strict=True)))
    if rough[0] < rough[1]:
        raise UnreadableDicom(
            f"its header says {bits} bits stored, but its values go from {whole[kept].min()} to {whole[kept].max()}: "
            "correct BitsStored and HighBit"
        )


def _check_rescaling(header: Dataset) -> None:
    """Refuse a rescaling that makes no picture; one that is empty is none."""
    for name, usual in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        if name in header and header[name].is_empty:
            setattr(header, name, usual)
    if not all(np.isfinite(float(header.get(name) or 0)) for name in ("RescaleSlope", "RescaleIntercept")):
        raise UnreadableDicom("its rescale slope or intercept is no finite number; replace it with an intact copy")
    if header.get("RescaleSlope") is not None and float(header.RescaleSlope) == 0:
        raise UnreadableDicom("its rescale slope is 0, which leaves no picture; replace it with an intact copy")


def _padding(header: Dataset, values: np.ndarray) -> np.ndarray | None:
    """Return which pixels are padding, bool (H, W); None without a padding value in the header."""
    first = header.get("PixelPaddingValue")
    if first is None:
        return None
    last = header.get("PixelPaddingRangeLimit")
    # the header may give a signed value as the unsigned number of the same bits
    ends = [np.array(end).astype(values.dtype) for end in (first, first if last is None else last)]
    return (values >= min(ends)) & (values <= max(ends))
