"""Making a prepared copy, in several processes, resuming where an earlier call stopped."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lightning_chex.csv_text import csv_lines
from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import ImageReader, check_names, check_regular, first_few
from lightning_chex.data.images.prepared.reading import (
    COLUMNS,
    Manifest,
    file_sizes,
    map_images,
    open_prepared,
    read_manifest,
    unfinished_name,
)
from lightning_chex.data.images.unreadable import OnUnreadable, check_share
from lightning_chex.data.transforms import ImageTransform
from lightning_chex.files import hold, remove_unfinished, write_whole
from lightning_chex.json_text import load_json

_CHUNK = 16  # images per message of a worker
_SCAFFOLD = ("plan.json", "progress.csv", "lock")

IndexRow = tuple[str, ...]
"""Row of one image in ``index.csv``, after its id."""


def prepare_copy(
    sources: Mapping[str, str],
    read: ImageReader,
    folder: str | Path,
    size: int,
    workers: int,
    on_unreadable: OnUnreadable = "error",
) -> Path:
    """Resize every image once, as ``ImageTransform`` would, into a copy to train from.

    After an interruption the same call resumes: recorded images with a valid checksum are not made again. A complete
    copy is checked and left as it is.

    Args:
        sources: image id to path.
        read: reads an image file; has to be picklable where processes are spawned.
        folder: of the copy; made if absent.
        size: longest side in pixels.
        workers: processes that read and resize; 0 does it all in this one.
        on_unreadable: ``error`` makes all other images, then raises; ``skip`` records unreadable ones and warns.

    Returns:
        The folder.

    Raises:
        DataError: the folder is in use or cannot be written to, the disk is full, an image is unreadable, the work was
            interrupted, or a size or count is outside its range.
    """
    for name, value, least in [("size", size, 1), ("workers", workers, 0)]:
        if value < least:
            raise DataError(f"{name} is {value}: give at least {least}")
    transform = ImageTransform(size)
    names = sorted(sources)
    paths = [sources[name] for name in names]
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    if folder.is_symlink():  # nothing can be renamed to it; its target may
        folder = Path(os.path.realpath(folder))
    work = unfinished_name(folder)
    try:
        if _is_whole(folder, names, paths):
            open_prepared(folder, size, sources, read)
            print(f"{folder} is whole already: nothing to do")
            return folder
        with hold(work):
            remove_unfinished(work)
            _begin(work, names, size)
            rows = _recall(work, paths)
            left = [number for number in range(len(names)) if number not in rows]
            if left and len(left) < len(names):
                print(f"{len(names) - len(left)} of {len(names)} images are done: going on with the others")
            failures: dict[str, str] = {}
            for number, row, failure in _make(work, _Images(paths, left, read, transform), workers):
                rows[number] = row
                if failure:
                    failures[names[number]] = failure
            if failures and on_unreadable == "error":
                raise DataError(
                    f"{len(failures)} of {len(names)} images cannot be read: {first_few(failures.values())}. All "
                    "others are done: replace these and give the same command again, or set on_unreadable: skip"
                )
            check_share(len(failures), len(names), "data set", first_few(failures.values()))
            _finish(work, names, [rows[number] for number in range(len(names))], size)
            os.rename(work, folder)  # over an empty folder too
            for name in _SCAFFOLD:
                (folder / name).unlink(missing_ok=True)
    except KeyboardInterrupt as error:
        raise DataError(f"interrupted; what is done stays in {work}: give the same command again to go on") from error
    except BlockingIOError as error:
        raise DataError(f"{work}: {error.strerror}: wait for it, or give another output_dir") from error
    except OSError as error:
        raise DataError(
            f"cannot write the prepared copy to {folder}: {error.strerror or error}; {len(names)} images of {size} "
            f"pixels need {len(names) * size**2 / 1e9:.2f} GB. What is done stays in {work}: make room or rights and "
            "give the same command again, or give another output_dir"
        ) from error
    print(f"{len(names)} images prepared in {folder}: train with --data.size {size} --data.prepared {folder}")
    return folder


class _Images(Dataset[tuple[int, np.ndarray | None, IndexRow, str]]):
    """Images still to be made: number, pixels (size, size) or None, row of the index, and what went wrong or ''."""

    def __init__(self, paths: list[str], left: list[int], read: ImageReader, transform: ImageTransform) -> None:
        self.paths = paths
        self.left = left
        self.read = read
        self.transform = transform

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | None, IndexRow, str]:
        number = self.left[index]
        path = self.paths[number]
        size = self.transform.size
        frame = np.zeros((size, size), dtype=np.uint8)
        source, small, content, failure = np.zeros((0, 0)), np.zeros((0, 0)), b"", ""
        try:
            check_regular(path)
            content = Path(path).read_bytes()
            source = self.read(path)
            small = self.transform.resize(source)
            frame[: small.shape[0], : small.shape[1]] = small
        except DataError as error:
            failure = str(error)
        except OSError as error:
            failure = f"cannot read image {path} ({error.strerror})"
        shapes = (*small.shape, *source.shape)
        row = (*map(str, shapes), str(len(content)), hashlib.sha256(content).hexdigest())
        return number, frame, (*row, hashlib.sha256(frame.data).hexdigest()), failure


def _is_whole(folder: Path, names: list[str], paths: list[str]) -> bool:
    """Whether there is a complete copy; raises where none can be."""
    if not paths:
        raise DataError("there is no image to prepare")
    check_names(names)
    taken = {Path(path).parent.resolve() for path in paths}
    inside = taken & {folder.resolve(), *folder.resolve().parents}
    if inside:
        raise DataError(f"output_dir {folder} lies in the image folder {inside.pop()}: give a folder outside of it")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"output_dir {folder} is a file: give a new folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        if os.path.ismount(folder):  # the final renaming would fail
            raise DataError(f"output_dir {folder} is a mounted disk, which cannot be replaced: give a folder in it")
        return False
    if not (folder / "manifest.json").is_file():
        raise DataError(f"output_dir {folder} holds other files: give a new or an empty folder")
    read_manifest(folder)
    return True


def _begin(work: Path, names: list[str], size: int) -> None:
    """Record the plan and allocate the file, unless that was done before."""
    plan = {"size": size, "images": len(names), "names": hashlib.sha256("\n".join(names).encode()).hexdigest()}
    path = work / "plan.json"
    if path.is_file():
        if _read_plan(path) != plan:
            raise DataError(
                f"{work} holds the beginning of a copy of other images or of another size: delete it, or give another "
                "output_dir"
            )
        return
    images = work / "images.npy"
    # header and length alone; pixels are written through a file, where a full disk is an error and not a signal
    shape = (len(names), size, size)
    np.lib.format.open_memmap(images, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with open(images, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, images.stat().st_size)
        except OSError:
            images.unlink()  # it may hold all the room that was left
            raise
    write_whole(path, json.dumps(plan), sync=True)


def _read_plan(path: Path) -> dict[str, Any]:
    """Read the plan of an unfinished copy; raises a DataError for a damaged one."""
    try:
        return load_json(path)
    except ValueError as error:
        raise DataError(f"cannot read {path}: {error}; delete {path.parent} and prepare anew") from error


def _recall(work: Path, paths: list[str]) -> dict[int, IndexRow]:
    """Read which images an earlier call made, except those whose file or pixels have changed."""
    lengths = [str(length) for length in file_sizes(paths)]
    images, log = map_images(work), work / "progress.csv"
    rows: dict[int, IndexRow] = {}
    if log.is_file():
        for fields in csv.reader(io.StringIO(log.read_text(encoding="ascii", errors="replace"))):
            # a line may be cut where the earlier call was
            if len(fields) == len(COLUMNS) and fields[0].isdigit() and int(fields[0]) < len(images):
                number, row = int(fields[0]), tuple(fields[1:])
                same_file = row[0] != "0" and row[4] == lengths[number]
                if same_file and hashlib.sha256(images[number]).hexdigest() == row[-1]:
                    rows[number] = row
    write_whole(log, "".join(_line(number, row) for number, row in rows.items()), sync=True)
    return rows


def _line(number: int, row: IndexRow) -> str:
    return ",".join((str(number), *row)) + "\n"


def _make(work: Path, todo: _Images, workers: int) -> Iterator[tuple[int, IndexRow, str]]:
    """Make images, and record each once its pixels are in the file."""
    if not len(todo):
        return
    loader: DataLoader[Any] = DataLoader(todo, batch_size=_CHUNK, num_workers=workers, collate_fn=list)
    images = map_images(work)
    start, step = images.offset, todo.transform.size**2  # type: ignore[attr-defined]  # a numpy.memmap
    with (
        open(work / "images.npy", "r+b", buffering=0) as file,
        open(work / "progress.csv", "a", encoding="ascii") as log,
        tqdm(total=len(todo), desc="preparing", unit=" images", disable=None) as bar,
    ):
        for chunk in loader:
            for number, frame, row, failure in chunk:
                file.seek(start + number * step)
                if file.write(frame) != step:
                    raise OSError("the disk took a part of an image only")
                log.write(_line(number, row))
                yield number, row, failure
            log.flush()
            bar.update(len(chunk))


def _finish(work: Path, names: list[str], rows: list[IndexRow], size: int) -> None:
    """Write index and manifest, and flush everything to disk."""
    sources = hashlib.sha256()
    for name, row in zip(names, rows, strict=True):
        sources.update(f"{name}\t{row[4]}\t{row[5]}\n".encode())
    content = csv_lines([COLUMNS, *((name, *row) for name, row in zip(names, rows, strict=True))])
    unreadable = [name for name, row in zip(names, rows, strict=True) if row[0] == "0"]
    if unreadable:
        rank_zero_warn(
            f"{len(unreadable)} of {len(names)} images cannot be read and are recorded as such: {first_few(unreadable)}"
        )
    manifest = Manifest(
        images=len(names),
        unreadable=len(unreadable),
        size=size,
        sources_sha256=sources.hexdigest(),
        index_sha256=hashlib.sha256(content.encode()).hexdigest(),
    )
    with open(work / "images.npy", "rb") as images:
        os.fsync(images.fileno())
    write_whole(work / "index.csv", content, sync=True)
    write_whole(work / "manifest.json", json.dumps(asdict(manifest), indent=2) + "\n", sync=True)
