"""JSON from outside: plain values of bounded size and depth, or one error that says what is wrong.

Python's own parser raises a RecursionError for deep nesting, reads files of any size and returns whatever type the text
holds. Every JSON file that this package reads goes through `load_json`, as every YAML file goes through `yaml_text`.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 2**30
"""Largest file that is read: a hundred times the annotations of the largest published data set."""

MOST_LEVELS = 64
"""Deepest nesting of lists and objects; the files of this package and of the public data sets have fewer than 10."""

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def load_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: of a regular file, UTF-8 with or without a byte order mark.

    Returns:
        The object.

    Raises:
        ValueError: the file is no regular file, larger than `MOST_BYTES`, not UTF-8, no JSON, nested deeper than
            `MOST_LEVELS`, or its outermost value is no object. The message gives the reason, without the path.
        OSError: it cannot be read.
    """
    path = Path(path)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        # opening a pipe would wait for a writer without end
        raise ValueError("it is no regular file")
    if found.st_size > MOST_BYTES:
        raise ValueError(f"it has {found.st_size:,} bytes, more than the {MOST_BYTES:,} that are read")
    return parse_json(path.read_bytes())


def parse_json(content: bytes | str) -> dict[str, Any]:
    """Read the text of one JSON object; see `load_json`.

    Example:
        >>> parse_json('{"size": [2, 3]}')
        {'size': [2, 3]}
        >>> parse_json("[" * 100 + "]" * 100)
        Traceback (most recent call last):
        ...
        ValueError: it is nested 100 levels deep, more than the 64 that are read
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    depth = _depth(text)
    if depth > MOST_LEVELS:
        raise ValueError(f"it is nested {depth} levels deep, more than the {MOST_LEVELS} that are read")
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:  # malformed text can be deeper for the parser than for `_depth`
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"its outermost value is a {_NAMES.get(type(value), type(value).__name__)}, not an object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Join the members of an object; raises a ValueError for a name that is there twice, of which one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object in it has the name {twice!r} more than once")
    return found


_NAMES = {list: "list", str: "text", int: "number", float: "number", bool: "truth value", type(None): "null"}


def _depth(text: str) -> int:
    """Return the deepest nesting of brackets outside of strings, without recursion."""
    if text.count("[") + text.count("{") <= MOST_LEVELS:
        return 0  # the usual case of small files: they cannot be nested any deeper
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
