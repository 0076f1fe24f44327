"""Contents of a checkpoint for a model: weights, feature statistics, and the size of the training images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from lightning_chex.attribution import Attributor, LayerError
from lightning_chex.checkpoints import CheckpointError, read_checkpoint
from lightning_chex.maps.feature_statistics import Saved, saved_by_layer, shapes_of

LINE_UP = "line_up"
"""Key in a callback's state: feature statistics of the layers that ``evaluate`` compares methods at."""

OTHERS = "others"
"""Key in a callback's state: what each of its methods but the first has learnt, by name."""

COURSE = "course"
"""Key in a callback's state: what it has shown so far, no statistics; see ``explanations/writer.py``."""


def load_weights(model: pl.LightningModule, path: Path, argument: str = "ckpt_path") -> dict[str, Any]:
    """Give a model the weights of a checkpoint.

    Args:
        model: of the settings the checkpoint was made with.
        path: a ``.ckpt`` file; nothing in it is executed.
        argument: that names it, for messages.

    Returns:
        What else the checkpoint holds.

    Raises:
        CheckpointError: another kind of file, or of another model.
        MisconfigurationException: weights of other classes or scores.
    """
    checkpoint = read_checkpoint(path, argument)
    check_fits(model, checkpoint, path, argument)
    model.load_state_dict(checkpoint.pop("state_dict"))
    return checkpoint


def check_fits(
    model: pl.LightningModule, checkpoint: dict[str, Any], path: str | Path, argument: str = "ckpt_path"
) -> None:
    """Check that the tensors of a checkpoint and of a model have the same names and shapes.

    Args:
        model: of the settings the checkpoint was made with.
        checkpoint: as from ``read_checkpoint``; the model's ``on_load_checkpoint`` may change it.
        path: where it comes from, for messages.
        argument: what the user gave it as, for messages.

    Raises:
        CheckpointError: they differ.
        MisconfigurationException: weights of other classes or scores.
    """
    model.on_load_checkpoint(checkpoint)
    theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    odd = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    if odd:
        there = theirs.get(odd[0], "missing")
        here = ours.get(odd[0], "missing")
        raise CheckpointError(
            f"{argument}={str(path)!r} does not fit the model of the configuration, {type(model).__name__}: {len(odd)} "
            f"tensors differ, such as {odd[0]} ({there} in the file, {here} in the model): give the configuration it "
            "was trained with, or another checkpoint"
        )


def saved_statistics(checkpoint: dict[str, Any], callbacks: Sequence[pl.Callback]) -> list[Saved]:
    """Feature statistics that explaining callbacks have left in a checkpoint.

    Args:
        checkpoint: as from ``load_weights``.
        callbacks: of the trainer; the states of those with an ``attributor`` are read.
    """
    states = checkpoint.get("callbacks", {})
    if not isinstance(states, Mapping):  # of something else than Lightning
        return []
    found = []
    for callback in callbacks:
        attributor = getattr(callback, "attributor", None)
        state = states.get(callback.state_key)
        if isinstance(attributor, Attributor) and state:
            own = {key: value for key, value in state.items() if key != COURSE}
            line_up = own.pop(LINE_UP, {})
            others = own.pop(OTHERS, {})
            found += [(attributor, part) for part in (own, line_up) if part]
            methods = getattr(callback, "attributors", {})
            found += [(methods[name], part) for name, part in others.items() if name in methods]
    return found


def trained_size(
    checkpoint: Mapping[str, Any], saved: Sequence[Saved], network: nn.Module, size: int, device: torch.device
) -> int | None:
    """Side in pixels of the images a model was trained on.

    Args:
        checkpoint: as from ``load_weights``. The tasks of this package write ``image_size`` into it.
        saved: feature statistics it holds. Where it says no size, their shapes give it up to a few pixels.
        network: the model's.
        size: side of the images at hand.
        device: of the network.

    Returns:
        None if it is unknown.
    """
    known = checkpoint.get("image_size")
    if isinstance(known, int):
        return known
    found = {layer: own.shape for one in saved for layer, own in saved_by_layer(*one).items() if own.count}
    if not found:
        return None
    try:
        now = shapes_of(network, found, torch.zeros(1, 3, size, size, device=device))
    except LayerError:  # statistics of a layer that only the trained network has: whatever needs them will say so
        return None
    sides = [size if then == now[layer] else round(size * then[-1] / now[layer][-1]) for layer, then in found.items()]
    return sides[0]
