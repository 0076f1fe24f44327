"""The methods an explaining callback has, by name, and its place among the other callbacks."""

import re
from pathlib import Path
from typing import Any, get_args

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.attribution import IBA, Attributor
from lightning_chex.checkpoints import CheckpointError
from lightning_chex.lightning_private import callbacks_of, set_callbacks
from lightning_chex.maps import LungNetwork, Regions


def methods_of(
    name: str, attributor: Attributor | None, attributors: dict[str, Attributor] | None
) -> dict[str, Attributor]:
    """The methods by name, of either argument."""
    if attributors is None:
        return {name: IBA() if attributor is None else attributor}
    if attributor is not None or not attributors:
        raise ValueError("give either attributor, one method, or attributors, one or several by name")
    for own in attributors:
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", own):
            raise ValueError(f"attributors: the name {own!r} becomes part of keys and files: letters, digits, _ and -")
    return dict(attributors)


def check_choice(argument: str, value: str, kind: Any) -> None:
    """Raise a ValueError unless a value is one of those of a ``Literal``."""
    if value not in get_args(kind):
        raise ValueError(f"{argument}={value!r} is unknown; choose {', '.join(get_args(kind))}")


def check_arguments(
    num_images: int,
    every_n_epochs: int,
    batch_size: int,
    top_fraction: float,
    regions: str,
    time_budget: float | None,
) -> None:
    """Raise a ValueError that names the first argument of an `IBACallback` that is out of its range."""
    if num_images < 1 and num_images != -1:
        raise ValueError(f"num_images={num_images} must be at least 1, or -1 for all")
    for argument, value in (("every_n_epochs", every_n_epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{argument}={value} must be at least 1")
    check_choice("regions", regions, Regions)
    if not 0 < top_fraction <= 1:
        raise ValueError(f"top_fraction={top_fraction} must lie in (0, 1]")
    if time_budget is not None and not time_budget > 0:
        raise ValueError(f"time_budget={time_budget} must be greater than 0 seconds, or null for none")


def lung_network(path: str) -> LungNetwork:
    """Load a lung network, on the CPU for now; a MisconfigurationException where the file is none."""
    try:
        return LungNetwork(Path(path), torch.device("cpu"))
    except CheckpointError as error:
        raise MisconfigurationException(str(error)) from error


def check_names(names: list[str]) -> None:
    """Raise a MisconfigurationException if two methods, of one or several callbacks, would log the same keys."""
    for name in names:
        if names.count(name) > 1:
            raise MisconfigurationException(
                f"two methods would log val/{name}_iou: give each IBACallback a name of its own (name: ...), or one of "
                "them all methods (attributors: {NAME: ..., NAME: ...})"
            )


def run_before_weight_averaging(trainer: pl.Trainer, explaining: pl.Callback) -> None:
    """Weight averaging swaps its weights out when validation ends: what is explained must come before that."""
    callbacks = callbacks_of(trainer)
    averaging = [i for i, callback in enumerate(callbacks) if isinstance(callback, WeightAveraging)]
    if averaging and averaging[0] < callbacks.index(explaining):
        rest = [callback for callback in callbacks if callback is not explaining]
        rest.insert(averaging[0], explaining)
        set_callbacks(trainer, rest)
        rank_zero_info("IBACallback now runs before the weight averaging, so that the averaged weights are explained")
