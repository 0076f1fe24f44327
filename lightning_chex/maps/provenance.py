"""Provenance of maps as plain values: method, weights, data folder and versions."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

import lightning_chex
from lightning_chex.attribution import Attributor, BottleneckSettings, FeatureStatistics

WITHOUT_EFFECT = frozenset({"batch_size", "memory", "explains_class", "unit"})
"""Attributes that change no map, or follow from others."""


def describe(attributor: Attributor) -> dict[str, Any]:
    """Return class and settings of an attributor, fit for JSON; what it has learnt is left out.

    Example:
        >>> from lightning_chex.attribution import GradCAM
        >>> describe(GradCAM(layer="features.norm5"))
        {'class': 'GradCAM', 'layer': 'features.norm5'}
    """
    return {"class": type(attributor).__name__, **dict(sorted(_settings(vars(attributor)).items()))}


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in sorted(values.items()):
        if isinstance(value, FeatureStatistics):
            plain[f"{name}_per"] = value.per  # the name of the setting
        elif isinstance(value, BottleneckSettings):
            plain |= _settings(vars(value))  # options of the method like any other
        elif not name.startswith("_") and name not in WITHOUT_EFFECT:
            plain[name] = _plain(value)
    return plain


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Attributor):
        return describe(value)
    if isinstance(value, Tensor):
        return f"sha256 {hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return _settings({str(name): own for name, own in value.items()})
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    return getattr(value, "__name__", type(value).__name__)  # a function's name


def digest_of_folder(folder: str | None) -> str | None:
    """A hash of where a folder is, so that a record tells it from another one without naming it; None for none."""
    if folder is None:
        return None
    return hashlib.sha256(os.fsencode(Path(folder).expanduser().resolve())).hexdigest()[:16]


def origin(path: Path | None, model: pl.LightningModule) -> dict[str, str]:
    """Say which weights these are: the file's name and hash; without a file the hash of the weights themselves."""
    if path is not None:
        with path.open("rb") as file:
            return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {"file": "weights in memory", "sha256": digest.hexdigest()}


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "lightning_chex": lightning_chex.__version__,
        "torch": torch.__version__,
        "pytorch_lightning": pl.__version__,
        "python": platform.python_version(),
    }
