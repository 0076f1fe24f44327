"""Reading of checkpoint files, in this place alone, and the checks before anything is built from them."""

import os
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_chex.checkpoints.limits import is_address, odd_tensor, packed_part, stray_path

REMEDY = "give a .ckpt file that a run has written"

_PARTS: dict[str, type] = {"state_dict": Mapping, "pytorch-lightning_version": str}
_STATES: dict[str, type] = {"optimizer_states": list, "lr_schedulers": list}
_PARTS_TO_RESUME: dict[str, type] = {**_PARTS, "epoch": int, "global_step": int, "loops": Mapping, **_STATES}
_OPTIONAL_PARTS: dict[str, type] = {"hyper_parameters": Mapping, "callbacks": Mapping, **_STATES}


class CheckpointError(ValueError):
    """The file is no checkpoint, or not one of this model; the message names it and the way out."""


def read_checkpoint(path: str | Path, argument: str = "ckpt_path", to_resume: bool = False) -> dict[str, Any]:
    """Read a file that Lightning has written, and see that it is built like one; nothing in it is executed.

    Args:
        path: the file.
        argument: what the user gave it as, for messages.
        to_resume: it also has to hold what a training needs to go on.

    Returns:
        What it holds. Tensors are on the CPU and mapped: their values stay on disk until they are used.

    Raises:
        CheckpointError: it is not there or no such file, or its weights are not numbers any more.
    """
    place = os.path.expanduser(path)
    reason = no_file(place)
    content: Any = None
    if not reason:
        try:
            part = packed_part(place)
            if part:
                reason = f"its part {part!r} is compressed and may become of any size; {REMEDY}"
            else:
                content = torch.load(place, map_location="cpu", weights_only=True, mmap=True)
                parts = _PARTS_TO_RESUME if to_resume else _PARTS
                reason = (
                    _odd_part(content, parts) or _beyond_limits(content, place) or not_a_number(content["state_dict"])
                )
        except Exception as error:  # torch raises what it likes for other files
            reason = why_unreadable(error)
    if reason:
        raise CheckpointError(f"{argument}={str(path)!r} is no checkpoint to use: {reason}")
    return content


def no_file(path: str | Path, remedy: str = REMEDY, zipped: bool = True) -> str | None:
    """Say why no regular file can be read there, or none of those that ``torch.save`` writes now (``zipped``)."""
    if is_address(str(path)):  # Lightning would fetch it, and read some of these with a pickle that runs code
        return f"it is a remote path, which is not supported; download the file, if you trust its source, and {remedy}"
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return f"it is a folder; {remedy}"
        if not stat.S_ISREG(status.st_mode):  # to read from a pipe would wait for ever
            return f"it is no regular file; {remedy}"
        if not status.st_size:
            return f"it is empty; {remedy}"
        return None if not zipped or zipfile.is_zipfile(path) else f"it is another kind of file, or cut short; {remedy}"
    except FileNotFoundError:
        return f"it does not exist; {remedy}"
    except OSError as error:
        return f"it cannot be read ({error.strerror}); {remedy}"
    except ValueError:  # a NUL
        return f"no file can have this name; {remedy}"


def _beyond_limits(content: Mapping[str, Any], path: str | Path) -> str | None:
    odd = odd_tensor(content, os.path.getsize(path))
    if odd:
        return f"{odd}; {REMEDY}"
    stray = stray_path(content.get("callbacks", {}))
    return stray and f"a callback's state has {stray}, a file that a training would delete; {REMEDY}"


def why_unreadable(error: Exception, remedy: str = REMEDY) -> str:
    """Say why torch did not read a file."""
    refused = re.search(r"\bGLOBAL (\w[\w.]*)", str(error))  # what torch would have had to import
    if refused:
        return f"it holds {refused[1]}, which could run code, and only tensors and plain values are read; {remedy}"
    first_line = next(iter(str(error).strip().splitlines()), "")
    first_line = first_line.partition(" Re-running")[0][:200]  # torch's advice to read it in an unsafe way
    return f"it is another kind of file, or damaged ({type(error).__name__}: {first_line}); {remedy}"


def _odd_part(content: Any, parts: Mapping[str, type]) -> str | None:
    """Say what a checkpoint must have, and this one has not or not of the right kind."""
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__} where a run keeps a dict; {REMEDY}"
    lacking = [name for name in parts if name not in content]
    if lacking and not _PARTS.keys() & set(lacking):
        return f"it has no {', '.join(lacking)}, so it holds weights alone and no training can go on from it; {REMEDY}"
    if lacking:
        return f"it has no {', '.join(lacking)}; {REMEDY}"
    kinds = {**parts, **{name: kind for name, kind in _OPTIONAL_PARTS.items() if name in content}}
    odd = [name for name, kind in kinds.items() if not isinstance(content[name], kind)]
    if odd:
        return f"its {odd[0]} is a {type(content[odd[0]]).__name__}; {REMEDY}"
    for name in _STATES:
        if not all(isinstance(state, Mapping) for state in content.get(name, [])):
            return f"its {name} holds other things than states; {REMEDY}"
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content["state_dict"].items()):
        return f"its state_dict holds other things than tensors by name; {REMEDY}"
    return None


def not_a_number(weights: Mapping[str, Tensor]) -> str | None:
    """Say which weights hold NaN or infinity; a mask may hold the latter."""
    floats = {name: value for name, value in weights.items() if value.is_floating_point()}
    lost = [name for name, value in floats.items() if value.isnan().any()]
    unbounded = [name for name, value in floats.items() if value.isinf().any() and not name.endswith("mask")]
    for odd, what in ((lost, "NaN"), (unbounded, "infinite values")):
        if odd:
            return (
                f"{len(odd)} of its {len(weights)} tensors hold {what} ({odd[0]} for one), so its training had "
                "diverged; give an earlier one, or train again with a lower lr"
            )
    return None
