"""Weights by name out of a file: a checkpoint of ours or of others, a plain state dict, or safetensors."""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lightning_chex.checkpoints.contents import CheckpointError, no_file, not_a_number, why_unreadable
from lightning_chex.checkpoints.limits import odd_tensor, packed_part

REMEDY = (
    "give a .ckpt file of a run, or the state_dict of a network, saved by torch.save(network.state_dict(), FILE) or as "
    "safetensors"
)

_HOLDERS = ("state_dict", "model_state_dict", "model")
"""Where trainings keep the weights beside other things."""


@dataclass(frozen=True)
class WeightsFile:
    """Contents of a file of weights.

    Attributes:
        tensors: by name, on the CPU; those of a ``.ckpt`` or ``.pt`` file stay on disk until they are used.
        rest: what stands beside them, such as ``hyper_parameters`` in a checkpoint of Lightning; plain values.
    """

    tensors: dict[str, Tensor]
    rest: Mapping[str, Any]


def read_weights(path: str | Path, argument: str = "weights") -> WeightsFile:
    """Read a file of weights, of whatever network; nothing in it is executed.

    Args:
        path: ``.safetensors``, or what ``torch.save`` has written, in its older formats too.
        argument: what the user gave it as, for messages.

    Raises:
        CheckpointError: it is not there or no such file, or its weights are not numbers any more.
    """
    place = os.path.expanduser(path)
    reason = no_file(place, REMEDY, zipped=False)
    found: WeightsFile | str | None = None
    if not reason:
        try:
            found = _safetensors(place) if place.endswith(".safetensors") else _saved_by_torch(place)
        except Exception as error:  # both libraries raise what they like for other files
            found = why_unreadable(error, REMEDY)
    if isinstance(found, WeightsFile):
        reason = not_a_number(found.tensors)
        if not reason:
            return found
    raise CheckpointError(f"{argument}={str(path)!r} is no file of weights to use: {reason or found}")


def _safetensors(path: str) -> WeightsFile | str:
    tensors = load_file(path)
    return WeightsFile(tensors, {}) if tensors else f"it holds no tensor; {REMEDY}"


def _saved_by_torch(path: str) -> WeightsFile | str:
    zipped = zipfile.is_zipfile(path)
    part = packed_part(path) if zipped else None
    if part:
        return f"its part {part!r} is compressed and may become of any size; {REMEDY}"
    # what torch.save wrote before 1.6, as published DenseNets are, cannot be mapped
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__} where weights are kept by name; {REMEDY}"
    holder = next((name for name in _HOLDERS if isinstance(content.get(name), Mapping)), None)
    tensors = content if holder is None else content[holder]
    if not tensors or not all(isinstance(name, str) and isinstance(own, Tensor) for name, own in tensors.items()):
        return f"it holds no tensors by name, alone or as {', '.join(_HOLDERS)}; {REMEDY}"
    odd = odd_tensor(content, os.path.getsize(path))
    if odd:
        return f"{odd}; {REMEDY}"
    return WeightsFile(dict(tensors), {} if holder is None else {k: own for k, own in content.items() if k != holder})
