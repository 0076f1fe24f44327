"""An attributor's settings as plain data: what a record of results has to say of the method."""

import hashlib
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_chex.attribution import Attributor, FeatureStatistics

WITHOUT_EFFECT = frozenset({"batch_size", "memory", "explains_class", "unit"})
"""Attributes that change no map, or follow from others."""


def describe(attributor: Attributor) -> dict[str, Any]:
    """Return class and settings of an attributor, fit for JSON; what it has learnt is left out.

    Example:
        >>> from lightning_chex.attribution import GradCAM
        >>> describe(GradCAM(layer="features.norm5"))
        {'class': 'GradCAM', 'layer': 'features.norm5'}
    """
    return {"class": type(attributor).__name__, **_settings(vars(attributor))}


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    plain = {}
    for name, value in sorted(values.items()):
        if isinstance(value, FeatureStatistics):
            plain[f"{name}_per"] = value.per  # as the setting is called
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
