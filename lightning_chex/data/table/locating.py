"""The file on disk that a cell of a table means: by path, file name, name without suffix, or DICOM UID."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd
from pydicom import dcmread

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.dicom import is_dicom
from lightning_chex.data.images.images import find_images, first_few, image_folders, image_id

_UID = re.compile(r"[0-9]+(\.[0-9]+){4,}")


def find_below(root: Path, follow_links: bool = False) -> dict[str, str]:
    """List all images below a folder.

    Returns:
        Path below ``root`` without the suffix of an image, with ``/``, to the path of the file.

    Raises:
        DataError: two images of one such name, or a link out of ``root``.
    """
    found: dict[str, str] = {}
    for folder in image_folders(root, follow_links):
        below = folder.relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found |= {prefix + name: path for name, path in find_images(root, [folder], follow_links).items()}
    return found


def names_of_images(cells: pd.Series, path: Path, root: Path) -> pd.Series:
    """Turn cells into the ids of images: without suffix, with ``/``, below the root.

    Raises:
        DataError: an empty cell, or a path that leads out of the root.
    """
    return cells.map({cell: _name(cell, row, path, str(cells.name), root) for row, cell in cells.items()})


def _name(cell: str, row: object, path: Path, column: str, root: Path) -> str:
    where = f"{path}, row {row}, column {column!r}"
    if not cell:
        raise DataError(f"{where}: the cell is empty: name the image, or remove the row")
    text = cell.replace("\\", "/")
    if "/" not in text and text not in (".", "..") and "\0" not in text:  # as of most tables; paths take their time
        return image_id(text)
    if text.startswith("/") or re.match(r"[A-Za-z]:/", text):
        try:
            text = Path(os.path.normpath(text)).relative_to(os.path.abspath(root)).as_posix()
        except ValueError as error:
            raise DataError(
                f"{where}: {cell!r} leads out of the data root {root}: give a path below it, or another root"
            ) from error
    parts = [part for part in PurePosixPath(text).parts if part != "."]
    if ".." in parts or "\0" in text or not parts:
        raise DataError(f"{where}: {cell!r} leads out of the data root {root}: give a path below it, without '..'")
    return "/".join([*parts[:-1], image_id(parts[-1])])


def match_files(ids: pd.Series, found: Mapping[str, str], path: Path, column: str) -> dict[str, str]:
    """Find the file of each image.

    A name is that of a file if one is the end of the other: ``a.png`` of ``images/a.png``, and a path that begins above
    the root, ``SET/train/a.png``, of ``train/a.png``.

    Args:
        ids: from `names_of_images`.
        found: from `find_below`.
        path: of the table, for messages.
        column: the one the ids are from.

    Returns:
        Id to path, of those that are there.

    Raises:
        DataError: an image that could be several files.
    """
    by_end: dict[str, list[str]] = {}
    for name in found:
        for end in ends(name):
            by_end.setdefault(end, []).append(name)
    uids: Mapping[str, str] | None = None
    matched: dict[str, str] = {}
    for row, name in ids.items():
        if name in found:
            matched[name] = found[name]
            continue
        alike = [*by_end.get(name, ()), *(end for end in ends(name) if end in found)]
        if len(alike) > 1:
            files = " or ".join(found[own] for own in alike[:3])
            raise DataError(
                f"{path}, row {row}, column {column!r}: {name!r} could be {files}: give the path below the root, or a "
                "root that holds one of them"
            )
        if alike:
            matched[name] = found[alike[0]]
        elif _UID.fullmatch(name):
            uids = _uids(found) if uids is None else uids
            if name in uids:
                matched[name] = uids[name]
    return matched


def refuse_one_file_twice(images: pd.DataFrame, path: Path, column: str) -> None:
    """Raise a DataError if two rows of ``images`` (``path``, ``row``) are of one file."""
    again = images["path"].duplicated()
    if again.any():
        row = images["row"][again].iloc[0]
        file = images["path"][again].iloc[0]
        before = images["row"][images["path"] == file].iloc[0]
        raise DataError(
            f"{path}, row {row}, column {column!r}: {file} is the image of row {before} too: keep one row an image"
        )


def ends(name: str) -> list[str]:
    """Return the suffixes of a path: without its first folder, without its first two, and so on."""
    parts = name.split("/")
    return ["/".join(parts[k:]) for k in range(1, len(parts))]


def _uids(found: Mapping[str, str]) -> dict[str, str]:
    """SOP instance UID to path, of the DICOM files among the images; of a file only that element is read."""
    uids: dict[str, str] = {}
    for path in found.values():
        if is_dicom(path):
            try:
                uid = str(dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
            except Exception:  # pydicom raises any type on damaged files  # noqa: BLE001
                continue  # if a row means it, it is missed and named there
            if uid in uids:
                raise DataError(f"two files for the DICOM UID {uid}: {first_few([uids[uid], path])}; remove one")
            uids[uid] = path
    return uids
