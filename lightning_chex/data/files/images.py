"""Finding, checking and reading image files; no name from a table leads out of the data root."""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lightning_chex.data.contract import DataError
from lightning_chex.data.files.dicom import check_dicom, dicom_size, is_dicom, read_dicom

ImageReader = Callable[[str | Path], np.ndarray]
"""Reads the grey image, uint8 (H, W), of a path; raises a DataError if it cannot."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")

_SUFFIX = re.compile(r"\.(png|jpe?g|dcm|dicom)$", re.IGNORECASE)
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # the last: bytes that are no UTF-8
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_FORMATS = ("PNG", "JPEG", "GIF")  # Pillow's others may run external programs
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


def check_images(paths: Sequence[str | Path], count: int | None = None) -> None:
    """Check, before training, that image files are complete, without decoding most of them; 100,000 take seconds.

    A PNG or JPEG passes by its first and last bytes; one with another end is decoded. For DICOM see ``check_dicom``.
    On a terminal, a progress bar is shown if it takes more than two seconds.

    Args:
        paths: of the files.
        count: of all images, for messages, where the others are known to be complete.

    Raises:
        DataError: some are missing, empty, truncated or no images; with their number and the first names.
    """
    problems: list[str] = []
    with (
        ThreadPoolExecutor(max_workers=16) as pool,  # the time goes into waiting for the disk
        tqdm(total=len(paths), desc="check images", unit="image", delay=_SILENT_SECONDS, disable=None) as bar,
    ):
        parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
        for part, found in zip(parts, pool.map(_problems, parts), strict=True):
            problems += found
            bar.update(len(part))
    if problems:
        raise DataError(
            f"{len(problems)} of {count or len(paths)} images cannot be read: {first_few(problems)}; "
            "replace them with intact copies, or remove them from disk and from the table"
        )


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


def _problems(paths: Sequence[str | Path]) -> list[str]:
    return [problem for problem in map(_problem, paths) if problem]


def _problem(path: str | Path) -> str | None:
    try:
        check_regular(path)
        with open(path, "rb") as file:
            start = file.read(24)
            if not start:
                return f"{path} (empty)"
            file.seek(-min(12, len(start)), os.SEEK_END)
            end = file.read()
        if _holds_dicom(path):
            check_dicom(path)
            return None
        # a PNG's width and height follow its signature and the name of its first chunk
        is_png = start.startswith(_PNG_START) and start[12:16] == b"IHDR" and any(start[16:20]) and any(start[20:24])
        if (is_png and end == _PNG_END) or (start.startswith(_JPEG_START) and end.endswith(_JPEG_END)):
            return None
        read_grey(path)
    except OSError as error:
        return f"{path} ({error.strerror})"
    except DataError as error:
        return f"{path} ({error.__cause__ or 'no regular file'})"
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
