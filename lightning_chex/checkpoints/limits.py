"""Limits for untrusted checkpoints: without running code they could exhaust memory, or have other files deleted."""

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SHARING = 4
"""Tensors may be so many times as large as their file: those that share memory are stored once."""

_NAMES_OF_FILES = ("best_model_path", "kth_best_model_path", "last_model_path", "best_k_models")
"""Files in the state of Lightning's ModelCheckpoint; a resumed training deletes some of them."""


def is_address(text: str) -> bool:
    """Say whether Lightning's file systems (fsspec) would take a text for an address, such as ``s3://a/b``.

    Example:
        >>> [is_address(text) for text in ("https://a.b/c", "filecache::s3://a", "data:,x", "runs/best.ckpt")]
        [True, True, True, False]
    """
    return "://" in text or bool(re.match(r"\s*(data:|[\w.+-]+::)", text))


def packed_part(path: str | Path) -> str | None:
    """Name a part of a zip archive that grows when it is read; ``torch.save`` compresses nothing."""
    with zipfile.ZipFile(path) as archive:
        return next((one.filename for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED), None)


def odd_tensor(content: Any, file_size: int) -> str | None:
    """Say which tensors are none of a training, or would need more memory than their file can account for."""
    total = 0
    for tensor in _tensors(content):
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            return f"it holds a tensor without values of its own ({tensor.layout}, {tensor.device.type})"
        total += tensor.numel() * tensor.element_size()
    if total > _SHARING * file_size:
        return f"its tensors would need {total} bytes, but the file has {file_size}"
    return None


def stray_path(callbacks: Mapping[str, Any]) -> str | None:
    """Name a file in the states of callbacks that Lightning would delete, though it may lie elsewhere.

    Lightning deletes what an address names, and what begins like its own folder, even where ``..`` leads out of that.
    """
    for state in callbacks.values():
        for name in _NAMES_OF_FILES if isinstance(state, Mapping) else ():
            value = state.get(name, "")
            for path in value if isinstance(value, Mapping) else [value]:
                if isinstance(path, str) and (is_address(path) or os.path.normpath(path) != str(Path(path))):
                    return f"{name}={path!r}"
    return None


def _tensors(content: Any) -> Iterator[Tensor]:
    """Every tensor in nested containers, once; also where these hold each other."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
