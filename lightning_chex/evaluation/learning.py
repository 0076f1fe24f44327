"""Fitting of the methods, saved so that a resumed evaluation makes the same maps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from lightning_chex.attribution import Attributor
from lightning_chex.data.contract import XrayDataModule
from lightning_chex.evaluation.results import write_json
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.explaining import Subject, feature_statistics, training_batches
from lightning_chex.files import write_whole
from lightning_chex.json_text import load_json


def learn(
    chosen: dict[str, Attributor],
    left_out: dict[str, str],
    named: bool,
    subject: Subject,
    data: XrayDataModule,
    example: Tensor,
    settings: EvaluationSettings,
    folder: Path,
) -> dict[str, Any]:
    """Fit methods, or load what they had learnt before an interruption.

    Args:
        chosen: methods by name, fitted in place; those that find nothing to learn from are taken out.
        left_out: gets the reason.
        named: the user named these methods, so none may be left out.
        subject: the model.
        data: offers training images, if there are any.
        example: an image to explain, (1, C, H, W).
        settings: of the evaluation.
        folder: of the evaluation.

    Returns:
        For each layer how many images its statistics rest on, and where these came from.

    Raises:
        ValueError: a method that was asked for finds nothing to learn from.
    """
    place = folder / "statistics"
    note = place / "statistics.json"
    known = _read_note(note)
    files = {name: place / f"{name}.safetensors" for name in chosen}
    for name, method in chosen.items():
        if files[name].exists():
            method.load_state_dict(load_file(files[name]))
    waiting = {name: method for name, method in chosen.items() if not files[name].exists()}
    batches = training_batches(data, settings.statistics_images, settings.seed) if _any_learns(waiting) else None
    fitted = feature_statistics(subject.network, waiting, subject.saved, batches, image=example)
    for name, reason in fitted.unfitted.items():
        if named:
            raise ValueError(
                f"method {name}: {reason}: leave it out of methods, or give a data root with training images"
            )
        left_out[name] = reason
        del chosen[name]
    known |= fitted.layers
    place.mkdir(exist_ok=True)
    for name, method in waiting.items():
        if name in chosen and method.num_observed is not None:
            state = {key: value.contiguous() for key, value in method.state_dict().items()}
            write_whole(files[name], save(state), sync=True)
    write_json(note, known)
    return known


def _any_learns(methods: Mapping[str, Attributor]) -> bool:
    return any(method.num_observed is not None and method.num_observed < 2 for method in methods.values())


def _read_note(path: Path) -> dict[str, Any]:
    """Read what an earlier call noted of its statistics; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        return load_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove {path.parent} to learn the statistics anew") from error
