"""What a checkpoint says beside its weights, without reading them."""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file.

    Attributes:
        name: of the file, without its folders.
        sha256: of the whole file.
        callbacks: the states of the callbacks, by ``state_key``.
        settings: ``class_names``, ``score_names`` and the model's other hyper-parameters.
    """

    name: str
    sha256: str
    callbacks: Mapping[str, Any]
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "Checkpoint":
        """Read a file that Lightning has written; nothing in it is executed.

        Raises:
            ValueError: it is not there, or is no such file.
        """
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            # mapped, so that the weights stay on disk
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            callbacks, settings = content.get("callbacks", {}), content.get("hyper_parameters", {})
            lacking = {"state_dict", "pytorch-lightning_version"} - content.keys()
            if lacking:
                raise AttributeError(f"it holds no {' and no '.join(sorted(lacking))}")
        except OSError as error:
            raise ValueError(f"ckpt_path={str(path)!r} cannot be read ({error.strerror}): give a .ckpt file") from error
        except (RuntimeError, pickle.UnpicklingError, AttributeError, EOFError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"ckpt_path={str(path)!r} is no checkpoint of a run ({reason}): give a .ckpt file"
            ) from error
        return cls(Path(path).name, digest, callbacks, settings)
