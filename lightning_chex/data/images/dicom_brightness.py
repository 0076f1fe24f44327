"""From the stored values of a DICOM file to brightness, by the standard's steps (PS3.4, N.2).

The modality LUT or rescaling maps a stored value to a physical one, the VOI LUT, or else the first window, that to a
brightness. Without a usable one, the range of the image serves as window.
"""

import math

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_windowing

MIN_SHOWN = 0.1
"""A VOI LUT or window is not used if a smaller share of the pixels lies between black and white, or their contrast is a
smaller share of full contrast."""

TAILS = 0.005
"""Share of the pixels that become black, and white, where the range of the image serves as window."""


def brightness_of(header: Dataset, stored: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the brightness of each stored value, before any inversion.

    Args:
        header: with the modality LUT or rescaling, and the VOI LUT or windows, if any.
        stored: stored values, int (V,).
        counts: pixels of each value, int (V,), not all 0.

    Returns:
        Brightness, 0 to 1, float64 (V,).
    """
    physical = np.asarray(apply_modality_lut(stored, header), dtype=np.float64)
    if header.get("VOILUTSequence"):
        shown = _apply_voi_lut(header.VOILUTSequence[0], physical)
    elif _has_window(header):
        shown = _apply_window(header, physical)
    else:
        return _own_range(physical, counts)
    inside = counts[(shown > 0) & (shown < 1)].sum() / counts.sum()
    contrast = np.ptp(shown[counts > 0])
    return shown if min(inside, contrast) >= MIN_SHOWN else _own_range(physical, counts)


def _apply_voi_lut(lut: Dataset, physical: np.ndarray) -> np.ndarray:
    # not pydicom's: its apply_voi wraps the index around at 256 where the entries have 8 bits
    entries, first, bits = lut.LUTDescriptor
    data = lut.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, dtype="<u2" if len(data) >= 2 * (entries or 2**16) else "u1")
    data = np.atleast_1d(np.asarray(data, dtype=np.float64))[: entries or 2**16]
    index = np.clip(np.rint(physical).astype(np.int64) - first, 0, len(data) - 1)
    return np.clip(data[index] / (2**bits - 1), 0, 1)


def _has_window(header: Dataset) -> bool:
    """Whether the first window is valid."""
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    try:
        center, width = (
            float(np.atleast_1d(np.asarray(header.get(name), dtype=np.float64))[0])
            for name in ("WindowCenter", "WindowWidth")
        )
    except (TypeError, ValueError, IndexError):  # absent, empty, or no numbers
        return False
    known = function in ("LINEAR", "LINEAR_EXACT", "SIGMOID")
    return (
        known and math.isfinite(center) and math.isfinite(width) and width > 0 and (width >= 1 or function != "LINEAR")
    )


def _apply_window(header: Dataset, physical: np.ndarray) -> np.ndarray:
    # two values far outside give pydicom's numbers for black and white
    far = 1e15
    with np.errstate(over="ignore"):  # the sigmoid of the far ones
        *shown, black, white = apply_windowing(np.concatenate([physical, [-far, far]]), header)
    return np.clip((np.array(shown) - black) / (white - black), 0, 1) if white != black else np.zeros(len(shown))


def _own_range(physical: np.ndarray, counts: np.ndarray) -> np.ndarray:
    order = np.argsort(physical, kind="stable")
    share = np.cumsum(counts[order]) / counts.sum()
    low = physical[order][np.searchsorted(share, TAILS, side="right")]
    high = physical[order][np.searchsorted(share, 1 - TAILS, side="left")]
    if high <= low:  # nearly all pixels are equal
        present = physical[counts > 0]
        low = present.min()
        high = present.max()
    if high == low:
        return np.zeros_like(physical)
    return np.clip((physical - low) / (high - low), 0, 1)
