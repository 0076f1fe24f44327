"""Cache of validated image files, so that the next start of a run need not open them all again."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.images.images import examine, refuse_images

RECORD = "checked_images.bin"
"""In the trainer's ``default_root_dir``: a checksum of 16 bytes, then one number a file that has passed, uint64."""

WORTHWHILE = 2_000
"""Fewer files are opened every time."""

_CHECKS = 2  # raise it when a check finds more than before: what is known then no longer counts
_AT_ONCE = 1_000
_SUM = 16


def check_once(paths: Sequence[str], trainer: pl.Trainer | None, decode: bool = True) -> None:
    """Check image files as ``check_images`` does, without opening those that an earlier run has found complete.

    A file is known by its path, size, place on disk and the times of its last changes, of which the file system keeps
    one that copying cannot set. Files are opened again without a trainer, whose ``default_root_dir`` holds the record,
    and where that folder does not exist yet.

    Args:
        paths: of the files.
        trainer: its ``default_root_dir`` holds the record.
        decode: decode a sample of the files that are opened; not where a run goes on without unreadable ones.

    Raises:
        DataError: some are missing, empty, truncated or no images; with their number and the first names.
    """
    root = "" if trainer is None else str(trainer.default_root_dir)
    if len(paths) < WORTHWHILE or not os.path.isdir(root):
        refuse_images(examine(paths, decode).problems, len(paths))
        return
    marks = file_signatures(paths)
    record = Path(root) / RECORD
    known = _read(record)
    new = (~np.isin(marks, known) | (marks == 0)).nonzero()[0]
    problems = examine([paths[place] for place in new], decode).problems
    # recorded before a damaged file ends the run, so that the next start opens that one alone again
    passed = np.delete(marks, new[list(problems)])
    if len(problems) < len(new) and trainer is not None and trainer.is_global_zero:
        _write(record, np.union1d(known, passed))
    refuse_images(problems, len(paths))


def file_signatures(paths: Sequence[str]) -> np.ndarray:
    """Return one number for each file as it is now, uint64 (N,); 0 for one that is not there."""
    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    with ThreadPoolExecutor(max_workers=16) as pool:  # a slow disk is waited for
        return np.fromiter(chain.from_iterable(pool.map(_marks, parts)), dtype=np.uint64, count=len(paths))


def _marks(paths: Sequence[str]) -> list[int]:
    folder = os.getcwd()
    marks = []
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            marks.append(0)
            continue
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        told = f"{_CHECKS}\0{os.path.join(folder, path)}\0{found.st_size} {found.st_dev} {found.st_ino} {times}"
        digest = blake2b(told.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        marks.append(int.from_bytes(digest, "little") or 1)
    return marks


def _read(record: Path) -> np.ndarray:
    """Return what is known; nothing, where there is no record or a damaged one, which is then made anew."""
    try:
        content = record.read_bytes() if record.is_file() else b""
    except OSError:
        content = b""
    whole = len(content) % 8 == 0 and content[:_SUM] == _checksum(content[_SUM:])
    return np.frombuffer(content[_SUM:] if whole else b"", dtype="<u8")


def _write(record: Path, known: np.ndarray) -> None:
    unfinished = record.with_name(f"{record.name}.{uuid4().hex}.unfinished")
    content = known.astype("<u8").tobytes()
    try:
        unfinished.write_bytes(_checksum(content) + content)
        os.replace(unfinished, record)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        rank_zero_warn(f"cannot write {record} ({error.strerror}): the next start will open all image files again")


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=_SUM).digest()
