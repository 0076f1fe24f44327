"""A prepared copy of a data set: every image resized once, in one memory-mapped file.

A copy is a folder with three files:

``images.npy``     uint8 (N, size, size), NumPy's own format: each image in the upper left corner, zeros around it
``index.csv``      a row per image, sorted by image id: the columns of ``COLUMNS``
``manifest.json``  what the folder is, its size, and the checksum of the index, which holds those of the images

A complete copy alone has its final name: while it is made (``data/prepared/preparing.py``), it is ``NAME.unfinished``.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lightning_chex.csv_text import plain_cell
from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import ImageReader, first_few
from lightning_chex.data.transforms import ImageTransform
from lightning_chex.json_text import load_json

FORMAT = "lightning_chex prepared copy, version 1"

COLUMNS = ("image_id", "height", "width", "source_height", "source_width", "source_bytes", "source_sha256", "sha256")
"""``height`` and ``width`` of the resized image (0 where the source could not be read), of the source, the source
file's size and checksum, and the checksum of the image's ``size`` x ``size`` bytes in ``images.npy``."""

SPOT_CHECKS = 8
"""Number of images, spread evenly over those in use, that are made again and compared before a copy is used."""


@dataclass(frozen=True)
class Manifest:
    """Contents of ``manifest.json``: numbers of images and of unreadable ones, their side, two checksums."""

    images: int
    unreadable: int
    size: int
    sources_sha256: str
    index_sha256: str
    format: str = FORMAT


class PreparedReader:
    """An ``ImageReader`` that takes images from a prepared copy instead of their files.

    Every image is verified by its checksum when read. Each process maps the file at its first read, so the reader
    can be pickled and memory stays constant.

    Args:
        folder: the copy.
        rows: path of each source image to its row.
        index: the copy's index.
    """

    def __init__(self, folder: Path, rows: Mapping[str, int], index: pd.DataFrame) -> None:
        self.folder = folder
        self._rows = dict(rows)
        self._shapes = index[["height", "width"]].to_numpy()
        # 32 bytes an image; strings would cost workers three times that
        self._sums = np.frombuffer(bytes.fromhex("".join(index["sha256"])), dtype=np.uint8).reshape(-1, 32)
        self._images: np.ndarray | None = None

    def __call__(self, path: str | Path) -> np.ndarray:
        """Return the resized image of a source path, uint8 (h, w).

        Raises:
            DataError: it is not in the copy, was unreadable when the copy was made, or is damaged there.
        """
        row = self._rows.get(str(path))
        if row is None:
            raise DataError(f"image {path} is not in the prepared copy {self.folder}: prepare it anew")
        height, width = self._shapes[row]
        if height == 0:
            raise DataError(f"cannot read image {path}: it was unreadable when the copy {self.folder} was prepared")
        if self._images is None:
            self._images = map_images(self.folder)
        image = self._images[row]
        if hashlib.sha256(image).digest() != self._sums[row].tobytes():
            raise DataError(f"image {path} is damaged in the prepared copy {self.folder}: delete that and prepare anew")
        return np.array(image[:height, :width])

    @property
    def unreadable(self) -> list[str]:
        """Paths of the images in use that could not be read when the copy was made."""
        return [path for path, row in self._rows.items() if self._shapes[row, 0] == 0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}  # pickled, a map would become the whole file


def open_prepared(
    folder: str | Path, size: int, sources: Mapping[str, str], read: ImageReader, strict: bool = False
) -> PreparedReader:
    """Open a copy for training, after checking that it equals what resizing on the fly would give.

    All images have to be in the copy, with unchanged file sizes; a few are made again and compared, which detects other
    reading options too. The copy may hold more images.

    Args:
        folder: the copy.
        size: the side the training works at.
        sources: image id to path, of every image of the training.
        read: reads a source.
        strict: refuse a copy in which an image of the training is recorded as unreadable.

    Raises:
        DataError: no copy, an unfinished or a damaged one, one of another size or of other images.
    """
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    manifest = read_manifest(folder)
    if manifest.size != size:
        raise DataError(
            f"the prepared copy {folder} has images of {manifest.size} pixels, but data.size is {size}: "
            f"set data.size to {manifest.size}, or prepare another copy with --size {size}"
        )
    index = read_index(folder, manifest)
    shape = map_images(folder).shape
    if shape != (manifest.images, size, size):
        raise DataError(f"{folder / 'images.npy'} holds {shape}, not what its manifest says: prepare it anew")

    numbers = pd.Series(np.arange(len(index)), index=index["image_id"])
    rows = numbers.reindex(list(sources)).fillna(-1).astype(int)
    lacking = rows.index[rows == -1]
    if len(lacking):
        raise DataError(
            f"{len(lacking)} of the {len(sources)} images are not in the prepared copy {folder}: {first_few(lacking)}; "
            "it was made of another data set or list: prepare another copy"
        )
    then = index["source_bytes"].to_numpy()[rows.to_numpy()].tolist()
    now = file_sizes(sources.values())
    changed = [name for name, before, after in zip(sources, then, now, strict=True) if before != after]
    reader = PreparedReader(folder, dict(zip(sources.values(), rows.tolist(), strict=True)), index)
    changed = changed or _changed_content(sources, reader, ImageTransform(size), read)
    if changed:
        raise DataError(
            f"{len(changed)} images are no longer what the prepared copy {folder} was made of: {first_few(changed)}; "
            "their files or the way they are read have changed: prepare another copy"
        )
    if strict and reader.unreadable:
        raise DataError(
            f"{len(reader.unreadable)} images could not be read when {folder} was prepared: "
            f"{first_few(reader.unreadable)}; prepare anew with intact copies, or set on_unreadable: skip"
        )
    return reader


def _changed_content(
    sources: Mapping[str, str], reader: PreparedReader, transform: ImageTransform, read: ImageReader
) -> list[str]:
    unreadable = set(reader.unreadable)
    readable = [name for name, path in sources.items() if path not in unreadable]
    chosen = {round(i) for i in np.linspace(0, len(readable) - 1, SPOT_CHECKS)} if readable else set()
    names = [readable[i] for i in sorted(chosen)]
    return [name for name in names if not np.array_equal(transform.resize(read(sources[name])), reader(sources[name]))]


def unfinished_name(folder: Path) -> Path:
    """Return the name of a copy until it is complete: beside the final one, for an atomic renaming."""
    return folder.parent / f"{folder.name}.unfinished"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a copy; raises a DataError for none, an unfinished one, or another version."""
    path = folder / "manifest.json"
    if not path.is_file():
        if unfinished_name(folder).is_dir() or folder.name.endswith(".unfinished"):
            raise DataError(f"the prepared copy {folder} is unfinished: give the same `prepare` command again to go on")
        raise DataError(
            f"no prepared copy (no manifest.json) in {folder}: "
            f"make one with `python -m lightning_chex prepare --output_dir {folder}` and your data options"
        )
    try:
        manifest = Manifest(**load_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}; delete the copy and prepare anew") from error
    for name, expected in Manifest.__annotations__.items():
        value = getattr(manifest, name)
        if type(value) is not expected:
            raise DataError(f"{path} says {name}={value!r}, not {expected.__name__}: delete the copy and prepare anew")
    if manifest.format != FORMAT:
        raise DataError(f"{path} says {manifest.format!r}, but this version reads {FORMAT!r}: prepare another copy")
    return manifest


def read_index(folder: Path, manifest: Manifest) -> pd.DataFrame:
    """Read the index of a copy, columns ``COLUMNS``; raises a DataError unless it matches the manifest."""
    path = folder / "index.csv"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): delete the copy and prepare anew") from error
    if hashlib.sha256(content).hexdigest() != manifest.index_sha256:
        raise DataError(f"{path} was changed after the copy was made: delete the copy and prepare anew")
    texts = {name: str for name in COLUMNS if name == "image_id" or name.endswith("sha256")}
    index = pd.read_csv(path, dtype=texts, keep_default_na=False)
    return index.assign(image_id=index["image_id"].map(plain_cell))


def map_images(folder: Path) -> np.ndarray:
    """Map the images of a copy into memory, read-only, uint8 (N, size, size); raises a DataError for a bad file."""
    path = folder / "images.npy"
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"cannot read {path}: {error}; delete the copy and prepare anew") from error
    if images.dtype != np.uint8 or images.ndim != 3:
        raise DataError(f"{path} does not hold images, uint8 (N, size, size): delete the copy and prepare anew")
    return images


def file_sizes(paths: Iterable[str]) -> list[int]:
    """Return the sizes of files in bytes; raises a DataError for a missing one."""

    def size_of(path: str) -> int:
        try:
            return os.stat(path).st_size
        except OSError as error:
            raise DataError(f"cannot read image {path} ({error.strerror}); replace it with an intact copy") from error

    with ThreadPoolExecutor(max_workers=16) as pool:  # the time goes into waiting for the disk
        return list(pool.map(size_of, paths))
