"""Reads the file an offline W&B run leaves: LevelDB log blocks of protobuf records, behind a header of 7 bytes."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER = b":W&B"
BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(data: bytes) -> Iterator[bytes]:
    """Whole records, those that span several blocks put together again.

    Raises:
        ValueError: it is no such file, or a checksum is wrong.
    """
    if data[:4] != HEADER:
        raise ValueError(f"no W&B run: it begins with {data[:4]!r}")
    position, parts = 7, []
    while position < len(data):
        left = BLOCK - position % BLOCK
        if left < 7:  # too short for a record's head: padding
            position += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[position : position + 7])
        part = data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind == 0 and length == 0:
            continue
        if zlib.crc32(bytes([kind]) + part) != checksum:
            raise ValueError(f"wrong checksum before byte {position}")
        parts.append(part)
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []


def records(path: Path) -> list[Record]:
    """Everything the run recorded, in order."""
    return [Record.FromString(payload) for payload in payloads(path.read_bytes())]


def run_file(root: Path) -> Path:
    """The one run below a folder."""
    (found,) = root.rglob("run-*.wandb")
    return found


def _values(items: Any) -> dict[str, Any]:
    # a nested key is a list of its parts, a plain one a string
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def config(found: list[Record]) -> dict[str, Any]:
    """The run's settings, as they stand at its end."""
    settings: dict[str, Any] = {}
    for record in found:
        for part in (record.run.config, record.config):
            settings |= _values(part.update)
    return settings


def history(found: list[Record]) -> list[dict[str, Any]]:
    """The rows logged, each a dict."""
    return [_values(record.history.item) for record in found if record.HasField("history")]
