"""DICOM files, and a small BrixIA data set in its publisher's own layout."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

METADATA_HEADER = (
    "Filename;StudyDate;Modality;Columns;Rows;Manufacturer;PhotometricInterpretation;BrixiaScore;BrixiaScoreGlobal;"
    "ConsensusTestset;Subject;StudyId;Sex;AgeAtStudyDateFiveYear"
)


def write_dicom(
    path: Path,
    pixels: np.ndarray | bytes,
    bits: int = 12,
    syntax: UID = ExplicitVRLittleEndian,
    compress: bool = False,
    **elements: Any,
) -> Path:
    """Write a DICOM file as a digital X-ray machine does.

    Args:
        path: where to.
        pixels: stored values, 8 or 16 bits, signed or unsigned, (rows, columns); or a JPEG stream as it is.
        bits: BitsStored.
        syntax: transfer syntax.
        compress: encode the pixels with pydicom's encoder of ``syntax``.
        elements: further elements by keyword, or others than the usual; None leaves one out.
    """
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if compress else syntax
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = DigitalXRayImageStorageForPresentation
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.PatientName, header.PatientID, header.Modality = "Doe^Jane", "4711-secret", "DX"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsStored, header.HighBit = bits, bits - 1
    if isinstance(pixels, bytes):
        header.BitsAllocated, header.PixelRepresentation = 8, 0
        header.PixelData = encapsulate([pixels])
    else:
        header.Rows, header.Columns = pixels.shape
        header.BitsAllocated = 8 * pixels.itemsize
        header.PixelRepresentation = int(pixels.dtype.kind == "i")
        content = pixels.tobytes()
        header.PixelData = content + b"\0" * (len(content) % 2)
    header["PixelData"].VR = "OB" if header.BitsAllocated == 8 else "OW"
    if compress:
        header.compress(syntax, generate_instance_uid=False)
    for name, value in elements.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)
    return path


def lut(first: int, bits: int, entries: list[int]) -> Dataset:
    """Make an item of a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def write_brixia(root: Path, folder: str = "dicom_clean", subjects: int = 15, size: int = 40) -> Path:
    """Write a data set of the layout of BrixIA.

    Every subject has two images; the first three subjects' first images are the consensus test set. Files are 12 bits,
    MONOCHROME1 and 2 in turn; those of the last subject are compressed. Zone by zone, brightness says the score.

    Args:
        root: where to; made if absent.
        folder: of the images, "." for ``root`` itself.
        subjects: how many.
        size: rows of the images; three quarters as many columns.
    """
    (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(2 * subjects):
        zones = np.clip(rng.integers(0, 4, size=6) + (i % 5) - 2, 0, 3)
        values = np.full((size, size * 3 // 4), 200, dtype=np.uint16)
        for zone, score in enumerate(zones):
            top, left = (1 + 2 * (zone % 3)) * size // 8, (1 if zone < 3 else 5) * values.shape[1] // 8
            values[top : top + size // 8, left : left + values.shape[1] // 4] = 800 + 800 * score
        kind = f"MONOCHROME{1 + i % 2}"
        if i % 2 == 0:
            values = 4095 - values
        name = f"{7 * 10**18 + i}.dcm"
        window = {"WindowCenter": 2047.5, "WindowWidth": 4096, "PhotometricInterpretation": kind}
        if i >= 2 * subjects - 2:
            write_dicom(root / folder / name, values, syntax=UID("1.2.840.10008.1.2.5"), compress=True, **window)
        else:
            write_dicom(root / folder / name, values, syntax=ImplicitVRLittleEndian, **window)
        consensus = int(i % 2 == 0 and i < 6)
        text = "".join(map(str, zones))
        rows.append(
            f"{name};20200403;DX;{values.shape[1]};{size};Maker;{kind};{text};{zones.sum()};{consensus};"
            f"P{i // 2:04d};A{i:04d};F;12"
        )
    table = "\r\n".join([METADATA_HEADER, *rows]) + "\r\n"
    (root / "metadata_global_v2.csv").write_bytes(table.encode("utf-8-sig"))
    return root
