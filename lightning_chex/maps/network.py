"""Checks that a model, its outputs and a batch can be explained, before any long work begins."""

from collections.abc import Collection
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_chex.attribution import Attributor
from lightning_chex.attribution.network.unwrapping import named_layers, unwrap
from lightning_chex.data.contract import PAGE, Outputs

DEFAULT_NETWORK = "model"
"""Name of the attribute that is taken for the network unless another one is given."""


def network_of(pl_module: pl.LightningModule, name: str, layers: Collection[str] = ()) -> nn.Module:
    """Return the network to which layer names refer, out of its wrappers.

    Args:
        pl_module: whose.
        name: of its attribute; empty for the LightningModule itself. Where there is no attribute of the name ``model``
            it is the only child that holds all parameters, else the LightningModule itself.
        layers: names that a network found in this way should have; it is the LightningModule itself if only this does.

    Raises:
        MisconfigurationException: it has no such module.
    """
    network = getattr(pl_module, name, None) if name else pl_module
    if name == DEFAULT_NETWORK and not isinstance(network, nn.Module):
        candidates = _whole_networks(pl_module)
        fitting = [own for own in candidates if named_layers(own).keys() >= set(layers)]
        network = next(iter([*fitting, *candidates]), None)
    if not isinstance(network, nn.Module):
        raise MisconfigurationException(
            f"network={name!r} is not a module of {type(pl_module).__name__}; "
            f"it has {', '.join(name for name, _ in pl_module.named_children()) or 'none'}; see {PAGE}"
        )
    return unwrap(network)


def _whole_networks(pl_module: pl.LightningModule) -> list[nn.Module]:
    """Return the networks that compute the outputs of a LightningModule with all of its parameters."""
    every = {id(parameter) for parameter in pl_module.parameters()}
    whole = [
        child
        for child in pl_module.children()
        if every and {id(parameter) for parameter in child.parameters()} == every
        if not isinstance(child, nn.ModuleList | nn.ModuleDict)
    ]
    found = whole if len(whole) == 1 else []
    if type(pl_module).forward is not pl.LightningModule.forward:
        found.append(pl_module)
    return found


def check_scores(pl_module: pl.LightningModule, outputs: Outputs) -> None:
    """Raise a MisconfigurationException if the model predicts several scores."""
    scores = outputs.score_names
    if not outputs.class_names and len(scores) > 1:
        raise MisconfigurationException(
            f"{type(pl_module).__name__} predicts the {len(scores)} scores {', '.join(scores)}, but maps explain one: "
            "set data.target: severity, in training too, or train without explanations (--trainer.callbacks null)"
        )


def check_model(pl_module: pl.LightningModule, outputs: Outputs, network: str, attributor: Attributor) -> None:
    """Check that the attributor suits the model.

    Raises:
        LayerError: the network has no such layer.
        MisconfigurationException: several scores, or an objective for something else.
    """
    check_scores(pl_module, outputs)
    attributor.check(network_of(pl_module, network, attributor.layers))
    check_target(pl_module, attributor, bool(outputs.class_names))


def check_target(
    pl_module: pl.LightningModule, attributor: Attributor, has_classes: bool, has_labels: bool = True
) -> None:
    """Raise a MisconfigurationException if the attributor does not explain what the model predicts."""
    try:
        attributor.check_target(has_classes, has_labels)
    except ValueError as error:
        predicts = "classes" if has_classes else "a score (it has no class_names)"
        raise MisconfigurationException(f"{type(pl_module).__name__} predicts {predicts}; {error}") from error


def check_output(output: Any, pl_module: pl.LightningModule, outputs: Outputs) -> None:
    """Raise a MisconfigurationException unless the network gives one number for each class, or one score."""
    classes = len(outputs.class_names)
    expected = [(classes,)] if classes else [(1,), ()]
    if not isinstance(output, Tensor) or tuple(output.shape[1:]) not in expected:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise MisconfigurationException(
            f"{type(pl_module).__name__} gives {found} for one image, but what can be explained is one number for each "
            "class, or one score: give such a model"
        )
