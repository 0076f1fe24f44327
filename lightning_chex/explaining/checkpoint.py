"""A trained model out of a checkpoint file: its weights, the statistics saved with them, and which file it was."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_chex.attribution import Attributor
from lightning_chex.explaining.checkpoint_contents import CheckpointError, read_checkpoint
from lightning_chex.explaining.feature_statistics import Saved
from lightning_chex.explaining.line_up_statistics import LINE_UP


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
    """See that a checkpoint's weights have a place in a model, and that all of it would be filled.

    Args:
        model: of the settings the checkpoint was made with.
        checkpoint: as from ``read_checkpoint``; the model's ``on_load_checkpoint`` may change it.
        path: where it comes from, for messages.
        argument: what the user gave it as, for messages.

    Raises:
        CheckpointError: they have not.
        MisconfigurationException: weights of other classes or scores.
    """
    model.on_load_checkpoint(checkpoint)
    theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    odd = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    if odd:
        there, here = theirs.get(odd[0], "missing"), ours.get(odd[0], "missing")
        raise CheckpointError(
            f"{argument}={str(path)!r} does not fit the model of the configuration, {type(model).__name__}: {len(odd)} "
            f"tensors differ, such as {odd[0]} ({there} in the file, {here} in the model): give the configuration it "
            "was trained with, or another checkpoint"
        )


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


def saved_statistics(checkpoint: dict[str, Any], callbacks: Sequence[pl.Callback]) -> list[Saved]:
    """Feature statistics that explaining callbacks have left in a checkpoint.

    Args:
        checkpoint: as from ``load_weights``.
        callbacks: of the trainer; those with an ``attributor`` tell whose a state is.
    """
    states = checkpoint.get("callbacks", {})
    if not isinstance(states, Mapping):  # of something else than Lightning
        return []
    found = []
    for callback in callbacks:
        attributor = getattr(callback, "attributor", None)
        state = states.get(callback.state_key)
        if isinstance(attributor, Attributor) and state:
            own = dict(state)
            line_up = own.pop(LINE_UP, {})
            found += [(attributor, part) for part in (own, line_up) if part]
    return found
