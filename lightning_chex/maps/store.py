"""Many maps in a few files: shards that stay readable while they grow, and an index that names what is in them.

A shard is a plain ``.npy`` file, float32 (n, h, w), to be memory-mapped: ``numpy.load(file, mmap_mode="r")[row]``. Maps
are added at its end, then its header is set to the new count, then the index gets their lines. So whatever the index
names is there in full, whenever the process ends.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_chex.csv_text import csv_lines, csv_rows
from lightning_chex.files import remove_unfinished, write_whole

SHARD_BYTES = 16 * 2**20
"""A shard of this size is not added to any more."""

Key = tuple[str, str]
"""Image id and target name."""

Entry = dict[str, str]
"""A line of the index, by column: ``image``, ``target``, columns of the user's, ``file`` and ``row``."""

_HEADER = 128


class Added(NamedTuple):
    """A map to add.

    Attributes:
        values: (h, w).
        entry: its line in the index, with ``image`` and ``target``, without ``file`` and ``row``.
    """

    values: NDArray[np.float32]
    entry: Mapping[str, str]


class MapStore:
    """Maps by image and target, in shards and with an index of them.

    Args:
        index: the index, a CSV file; what several processes have written is joined by `consolidate`.
        shards: folder of the shards, at or below the folder of the index.
        columns: what the index says of a map beside ``image``, ``target``, ``file`` and ``row``.
        rank: number of this process; each has shards and an index of its own.

    Raises:
        ValueError: the index has other columns.
    """

    def __init__(self, index: Path, shards: Path, columns: Sequence[str] = (), rank: int = 0) -> None:
        self.folder, self.shards = index.parent, shards
        self.header = ["image", "target", *columns, "file", "row"]
        self._joined = index
        self._index = index if rank == 0 else index.with_name(f"{index.stem}_rank{rank}{index.suffix}")
        self._rank = rank
        self._shard: _Shard | None = None
        self.entries: dict[Key, Entry] = {}
        drop_truncated_line(self._index)
        for path in {self._joined, self._index}:
            self.entries |= {_key(entry): entry for entry in self._read(path)}

    def add(self, maps: Iterable[Added]) -> None:
        """Write maps, then their lines.

        Raises:
            OSError: they cannot be written; what was there before is still there and whole.
        """
        maps = list(maps)
        lines = []
        for added in maps:
            values = np.ascontiguousarray(added.values, dtype="<f4")
            shard = self._shard_for(values.shape)
            row = shard.append(values)
            name = shard.path.relative_to(self.folder).as_posix()
            lines.append({**added.entry, "file": name, "row": str(row)})
        if self._shard is None:
            return
        self._shard.settle()
        new = not self._index.exists() or not self._index.stat().st_size
        text = csv_lines([*([self.header] if new else []), *([entry[name] for name in self.header] for entry in lines)])
        with self._index.open("a", newline="", encoding="utf-8") as index:
            index.write(text)
        self.entries |= {_key(entry): entry for entry in lines}

    def get(self, key: Key) -> NDArray[np.float32] | None:
        """Read a map, (h, w); None if there is none."""
        entry = self.entries.get(key)
        return None if entry is None else read_map(self.folder, entry)

    def consolidate(
        self, is_whole: Callable[[Sequence[Entry]], bool] = bool, order: Iterable[str] = ()
    ) -> dict[str, list[Entry]]:
        """Join the indices of all processes; process 0 alone may call this, while none is writing.

        Lines that are duplicate or truncated, or whose map is missing, are dropped, as are those of incomplete images.

        Args:
            is_whole: whether these are all maps of an image.
            order: image ids in the order of the lines; others come last.

        Returns:
            The entries of every whole image.
        """
        remove_unfinished(self.folder)
        paths = [self._joined, *sorted(self.folder.glob(f"{self._joined.stem}_rank*{self._joined.suffix}"))]
        found: dict[str, dict[str, Entry]] = {}
        for path in paths:
            for entry in self._read(path):
                found.setdefault(entry["image"], {})[entry["target"]] = entry
        whole = {image: list(own.values()) for image, own in found.items() if is_whole(list(own.values()))}
        places = {image: place for place, image in enumerate(order)}
        images = sorted(whole, key=lambda image: places.get(image, len(places)))
        rows = [[entry[name] for name in self.header] for image in images for entry in whole[image]]
        write_whole(self._joined, csv_lines([self.header, *rows]), sync=True)
        for path in paths[1:]:
            path.unlink()
        self.entries = {_key(entry): entry for image in images for entry in whole[image]}
        return {image: whole[image] for image in images}

    def _read(self, path: Path) -> list[Entry]:
        """Entries of an index whose maps are there."""
        counts: dict[str, int] = {}
        entries = []
        for entry in read_entries(path, self.header):
            file = entry["file"]
            if file not in counts:
                counts[file] = _count(self.folder / file)
            if entry["row"].isascii() and entry["row"].isdigit() and int(entry["row"]) < counts[file]:
                entries.append(entry)
        return entries

    def _shard_for(self, shape: tuple[int, ...]) -> "_Shard":
        """The shard the next map of this shape goes to: the last one, while it fits, else a new one."""
        if self._shard is None:
            mine = sorted(self.shards.glob(self._name("*")))  # of an earlier run
            self._shard = _Shard.opened(mine[-1]) if mine else None
        if self._shard is None or self._shard.is_full or self._shard.shape != shape:
            if self._shard is not None:
                self._shard.settle()
            number = 0
            while (path := self.shards / self._name(f"{number:05}")).exists():
                number += 1
            self._shard = _Shard(path, shape)
        return self._shard

    def _name(self, number: str) -> str:
        return f"shard_{number}.npy" if self._rank == 0 else f"rank{self._rank}_{number}.npy"


def read_entries(index: Path, header: Sequence[str] | None = None) -> list[Entry]:
    """Read an index; a line that a killed process left truncated is not there.

    Args:
        index: the CSV file; one that is absent is empty.
        header: the columns it must have; None for whatever it has.

    Raises:
        ValueError: it has others.
    """
    if not index.exists():
        return []
    content = index.read_bytes()
    # a process that was killed may have left half a line, of which half a number is a number too
    try:
        rows = csv_rows(content[: content.rfind(b"\n") + 1].decode("utf-8-sig"))  # spreadsheets begin with a mark
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{index} is not UTF-8 text ({error.reason}): save it as such, or give another folder"
        ) from error
    if not rows:
        return []
    if header is not None and rows[0] != list(header):
        raise ValueError(
            f"{index} has the columns {', '.join(rows[0])}, not {', '.join(header)}: it is of another version of "
            "lightning_chex, or was saved anew by another program; give another folder"
        )
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if len(row) == len(rows[0])]


def read_map(folder: Path, entry: Mapping[str, str]) -> NDArray[np.float32]:
    """Read the map an entry of an index names, (h, w)."""
    return np.array(np.load(folder / entry["file"], mmap_mode="r", allow_pickle=False)[int(entry["row"])])


class _Shard:
    """A ``.npy`` file that grows; rows beyond the count in its header are no part of it."""

    def __init__(self, path: Path, shape: tuple[int, ...], count: int = 0) -> None:
        self.path, self.shape, self.count = path, shape, count
        self._row_bytes = 4 * int(np.prod(shape))
        if count == 0:
            write_whole(path, _header(0, shape))

    @classmethod
    def opened(cls, path: Path) -> "_Shard | None":
        """One of an earlier run; None if it is no shard."""
        try:
            found = np.lib.format.open_memmap(path, mode="r")  # np.load would open a zip too
        except (OSError, ValueError):  # cut, empty, or something else under its name
            return None
        if found.ndim != 3:
            return None
        return cls(path, found.shape[1:], len(found))

    @property
    def is_full(self) -> bool:
        """Whether another map belongs into another shard."""
        return self.count * self._row_bytes >= SHARD_BYTES

    def append(self, values: NDArray[np.float32]) -> int:
        """Write a map behind the last one, and return its row; `settle` makes it part of the array."""
        with self.path.open("r+b") as file:
            file.seek(_HEADER + self.count * self._row_bytes)
            file.write(values.tobytes())
        self.count += 1
        return self.count - 1

    def settle(self) -> None:
        """Write the count into the header."""
        with self.path.open("r+b") as file:
            file.write(_header(self.count, self.shape))


def _header(count: int, shape: tuple[int, ...]) -> bytes:
    """The header of a ``.npy`` file, always of the same length."""
    sizes = ", ".join(map(str, (count, *shape)))
    words = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER - 10) + words.ljust(_HEADER - 11).encode() + b"\n"


def _count(path: Path) -> int:
    """Return the number of complete maps in a shard; 0 if the file is absent or no shard."""
    shard = _Shard.opened(path) if path.is_file() else None
    return 0 if shard is None else shard.count


def drop_truncated_line(path: Path) -> None:
    """Remove a last line without an end, as a killed process leaves it: the next line would be written onto it."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        write_whole(path, whole)


def _key(entry: Mapping[str, str]) -> Key:
    return entry["image"], entry["target"]
