"""Finding, checking and reading image files; no name from a table leads out of the data root."""

import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.dicom import check_dicom, dicom_size, is_dicom, read_dicom
from lightning_chex.data.images.dicom_header import MAX_PIXELS, stream_size

ImageReader = Callable[[str | Path], np.ndarray]
"""Reads the grey image, uint8 (H, W), of a path; raises a DataError if it cannot."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")

_SUFFIX = re.compile(r"\.(png|jpe?g|dcm|dicom)$", re.IGNORECASE)
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # the last: bytes that are no UTF-8
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_FORMATS = ("PNG", "JPEG", "GIF")  # Pillow's others may run external programs
_JPEG_HEADER = 2**16  # profiles and thumbnails may stand before the size, in segments of up to 64 KiB
_AT_ONCE = 256  # files a thread takes at a time: one by one, handing them over takes longer than looking at them
_SILENT_SECONDS = 2.0
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # all that Pillow raises


def image_id(name: str) -> str:
    """Return a file name without its image suffix; other dots stay, publishers use them.

    Args:
        name: a bare file name, such as a table holds.

    Raises:
        DataError: the name is empty or has a folder in it, so it might lead out of the data root.

    Example:
        >>> image_id("radiol.2020200274.fig3d.PNG")
        'radiol.2020200274.fig3d'
    """
    if not name or re.search(r"[/\\\0]", name) or name in {".", ".."}:
        raise DataError(f"{name!r} is not the bare file name of an image: remove folders from it")
    return _SUFFIX.sub("", name)


def resolve_inside(root: Path, name: str | Path, follow_links: bool = False) -> Path:
    """Return the true path of ``root / name``.

    Args:
        root: the data root.
        name: below it.
        follow_links: let symbolic links lead out of ``root``; ``..`` never does.

    Raises:
        DataError: it lies outside ``root``, or there is a circle of symbolic links.
    """
    try:
        base = root.resolve()
        path = (base / name).resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise the latter for links in a circle
        raise DataError(f"cannot follow {root / name} ({error}): remove the link, or give another path") from error
    if path.is_relative_to(base):
        return path
    if not Path(os.path.normpath(base / name)).is_relative_to(base):
        raise DataError(f"{str(name)!r} leads out of the data root {root}: give a name inside it")
    if not follow_links:
        raise DataError(
            f"{str(name)!r} leads out of the data root {root}: keep the data, not a link to it, in there, or set "
            "follow_links: true to read through links to other disks"
        )
    return path


def find_images(root: Path, folders: Iterable[Path], follow_links: bool = False) -> dict[str, str]:
    """List the images of some folders, not of their subfolders.

    A file with another suffix, or none, is an image if it has the prefix of DICOM, and its whole name is the id.

    Args:
        root: the data root, which no image may lie outside.
        folders: below ``root``.
        follow_links: let folders and files be links to somewhere else.

    Returns:
        Image id (file name without ``.png``, ``.jpg``, ``.jpeg``, ``.dcm`` or ``.dicom``) to path.

    Raises:
        DataError: two images with one id, or a link out of ``root``.
    """
    found: dict[str, str] = {}
    for folder in folders:
        resolve_inside(root, folder.relative_to(root), follow_links)
        try:
            entries = os.scandir(folder)
        except OSError as error:
            raise DataError(f"cannot open {folder} ({error.strerror}): get the right to, by chmod for one") from error
        with entries:
            for entry in entries:
                if entry.name.startswith("._"):  # what macOS writes beside a file on other systems' disks
                    continue
                stem, count = _SUFFIX.subn("", entry.name)
                if not count and not (entry.is_file(follow_symlinks=follow_links) and is_dicom(entry.path)):
                    continue
                if stem in found:
                    raise DataError(f"two files for image {stem!r}: {found[stem]} and {entry.path}; remove one")
                if entry.is_symlink():
                    resolve_inside(root, Path(entry.path).relative_to(root), follow_links)
                found[stem] = entry.path
    return found


def image_folders(root: Path, follow_links: bool = False) -> Iterator[Path]:
    """Give a folder and all below it, in order, without hidden ones and the output of ``explain``.

    Args:
        root: the folder.
        follow_links: look into folders that are linked too, into each once, so that a circle of links ends.
    """
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=follow_links):
        if follow_links:
            true = os.path.realpath(folder)
            if true in seen:
                inner.clear()
                continue
            seen.add(true)
        if "explanation.json" in names:  # the output of explain
            if Path(folder) != root:
                inner.clear()
                continue
            inner[:] = [name for name in inner if name not in ("maps", "overlays", "overlay_xrays")]
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield Path(folder)


def read_grey(path: str | Path) -> np.ndarray:
    """Read a PNG, JPEG or DICOM file as a grey image; for DICOM see ``read_dicom``.

    Colour becomes luminance (ITU-R 601), transparency becomes black, and 16 bits are scaled by their full range to 8.
    The EXIF orientation is ignored: X-ray archives store pixels upright.

    Returns:
        uint8 (H, W), 0 to 255.

    Raises:
        DataError: the file is missing, empty, damaged, or of an unknown kind.
    """
    check_regular(path)
    if _holds_dicom(path):
        return read_dicom(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            return _to_grey(image)
    except _UNREADABLE as error:
        raise DataError(f"cannot read image {path}: {error}; replace it with an intact copy") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """Return width and height of an image in pixels, from its header alone.

    Raises:
        DataError: the header cannot be read.
    """
    check_regular(path)
    if _holds_dicom(path):
        return dicom_size(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.size
    except _UNREADABLE as error:
        raise DataError(f"cannot read image {path}: {error}; replace it with an intact copy") from error


DECODED = 32
"""Image files that `examine` decodes, beside the first one of each format."""


@dataclass(frozen=True)
class Examined:
    """Result of a check of image files.

    Attributes:
        problems: why a file cannot be used, by its place in the list.
        decoded: how many files were decoded.
    """

    problems: Mapping[int, str]
    decoded: int


def check_images(paths: Sequence[str | Path], count: int | None = None) -> None:
    """Check image files before training, see `examine`.

    Args:
        paths: of the files.
        count: of all images, for messages, where the others are known to be complete.

    Raises:
        DataError: some cannot be used; with their number and the first names.
    """
    refuse_images(examine(paths).problems, count or len(paths))


def refuse_images(problems: Mapping[int, str], count: int) -> None:
    """Raise a DataError if there are problems with some of ``count`` images."""
    if problems:
        raise DataError(
            f"{len(problems)} of {count} images cannot be read: {first_few(problems.values())}; "
            "replace them with intact copies, or remove them from disk and from the table"
        )


def examine(paths: Sequence[str | Path], decode: bool = True) -> Examined:
    """Check that image files are complete and of a usable size, and decode a sample; 100,000 take seconds.

    A PNG or JPEG passes by its first and last bytes and the size in its header; one with another end is decoded. For
    DICOM see ``check_dicom``. Of the files that pass, `DECODED` spread evenly over the list are decoded, and the first
    one of each format: PNG, JPEG, and each transfer syntax of DICOM. On a terminal, a progress bar is shown if it takes
    more than two seconds.

    Args:
        paths: of the files.
        decode: decode the sample.
    """
    problems: dict[int, str] = {}
    first_of_format: dict[str, int] = {}
    with (
        ThreadPoolExecutor(max_workers=16) as pool,  # the time goes into waiting for the disk
        tqdm(total=len(paths), desc="check images", unit="image", delay=_SILENT_SECONDS, disable=None) as bar,
    ):
        starts = range(0, len(paths), _AT_ONCE)
        parts = [paths[start : start + _AT_ONCE] for start in starts]
        for start, part, found in zip(starts, parts, pool.map(_formats_of, parts), strict=True):
            for place, (file_format, problem) in enumerate(found, start):
                if problem is not None:
                    problems[place] = problem
                else:
                    first_of_format.setdefault(file_format, place)
            bar.update(len(part))
        sample: set[int] = set()
        if decode:
            sample = _sample(len(paths), first_of_format.values()) - problems.keys()
        places = sorted(sample)
        decodings = pool.map(_decoding, [paths[place] for place in places])
        for place, problem in zip(places, decodings, strict=True):
            if problem is not None:
                problems[place] = problem
    return Examined(dict(sorted(problems.items())), len(sample))


def _sample(count: int, always: Iterable[int]) -> set[int]:
    """Return `DECODED` places spread evenly over ``count``, and those of ``always``."""
    spread = {round(place) for place in np.linspace(0, count - 1, DECODED)} if count else set()
    return spread | set(always)


def check_regular(path: str | Path) -> None:
    """Raise a DataError for a pipe, a socket or a device, reading which might never end."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # reading it raises the error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError(f"cannot read image {path}: it is no regular file; remove it")


def check_names(ids: Iterable[str]) -> None:
    """Raise a DataError for names that cannot be written into tables: control characters, or no UTF-8."""
    odd = [name for name in ids if _NO_TEXT.search(name)]
    if odd:
        raise DataError(
            f"the names of {len(odd)} images have control characters or are not UTF-8: {first_few(map(ascii, odd))}; "
            "rename the files"
        )


def first_few(names: Iterable[object], limit: int = 3) -> str:
    """Join the first names of a list for a message, with dots if there are more."""
    shown = list(map(str, names))
    return ", ".join(shown[:limit]) + (", ..." if len(shown) > limit else "")


def _holds_dicom(path: str | Path) -> bool:
    suffix = _SUFFIX.search(str(path))
    return suffix.group(1).lower() in ("dcm", "dicom") if suffix else is_dicom(path)


def _formats_of(paths: Sequence[str | Path]) -> list[tuple[str, str | None]]:
    return [_format_of(path) for path in paths]


def _format_of(path: str | Path) -> tuple[str, str | None]:
    """Return the format of an image file, and why it cannot be used; None if nothing speaks against it."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            start = file.read(24)
            if not start:
                return "", f"{path} (empty)"
            file.seek(-min(12, len(start)), os.SEEK_END)
            end = file.read()
        if _holds_dicom(path):
            return check_dicom(path), None
        if start.startswith(_PNG_START) and start[12:16] == b"IHDR" and end == _PNG_END:
            # width and height follow the signature and the name of the first chunk
            width, height = struct.unpack(">2I", start[16:24])
            return "PNG", _size_problem(path, width, height)
        if start.startswith(_JPEG_START) and end.endswith(_JPEG_END):
            with open(path, "rb") as file:
                size = stream_size(file.read(_JPEG_HEADER))
            if size is not None:
                return "JPEG", _size_problem(path, size[1], size[0])
        read_grey(path)
    except OSError as error:
        return "", f"{path} ({error.strerror})"
    except DataError as error:
        return "", f"{path} ({error.__cause__ or 'no regular file'})"
    return "another format", None


def _size_problem(path: str | Path, width: int, height: int) -> str | None:
    # Pillow refuses to decode more than twice its limit of pixels
    most = min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
    if width > 0 and height > 0 and width * height <= most:
        return None
    return f"{path} (its header says {width} x {height}; images of up to {most:,} pixels are read)"


def _decoding(path: str | Path) -> str | None:
    """Decode an image; return why that fails, None if it does not."""
    try:
        read_grey(path)
    except DataError as error:
        return f"{path} ({error.__cause__ or error})"
    return None


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit PNG; Pillow names it I;16 or I by version
        values = np.asarray(image).astype(np.float64)
        if values.max() > 65535 or values.min() < 0:
            raise ValueError("grey values outside 16 bits")
        return np.rint(values * (255 / 65535)).astype(np.uint8)
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), layer)
    return np.array(image.convert("L"))
