"""The same network without what it was taught: built anew, or from a training on shuffled labels."""

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch import nn

from lightning_chex.explaining.checkpoint import load_weights, origin
from lightning_chex.explaining.subject import Shuffled


def trained_on_shuffled_labels(
    model: pl.LightningModule, network: nn.Module, path: str, argument: str = "shuffled_ckpt"
) -> Shuffled:
    """Read the network of a checkpoint that was trained on shuffled labels; the model is left as it is.

    Args:
        model: of the settings the checkpoint was made with.
        network: the part of it that is explained.
        path: a ``.ckpt`` file.
        argument: that names it, for messages.

    Raises:
        CheckpointError: see `load_weights`.
        MisconfigurationException: see `load_weights`.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    file = Path(path).expanduser()
    try:
        checkpoint = load_weights(model, file, argument)
        weights = {name: value.clone() for name, value in network.state_dict().items()}
    finally:
        model.load_state_dict(before)
    if not checkpoint.get("shuffled_labels"):
        rank_zero_warn(f"{argument}={path!r} does not say that it was trained with data.shuffle_labels: true")
    return Shuffled(weights, origin(file, model))


def builder(model: pl.LightningModule, network: str) -> Callable[[], nn.Module] | None:
    """Offer to make a model's network anew from its hyper-parameters; None where it has saved none.

    Args:
        model: whose class and hyper-parameters.
        network: name of its attribute that is the network; empty for the model itself.
    """
    if not model.hparams:
        return None

    def build() -> nn.Module:
        fresh = type(model)(**model.hparams)
        return getattr(fresh, network) if network else fresh

    return build
