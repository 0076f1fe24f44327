"""Checks that a model, its outputs and a batch can be explained, before any long work begins."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_chex.attribution import Attributor
from lightning_chex.attribution.unwrapping import unwrap
from lightning_chex.data.contract import PAGE, Outputs


def network_of(pl_module: pl.LightningModule, name: str) -> nn.Module:
    """Return the network to which layer names refer, out of its wrappers; the LightningModule itself for an empty name.

    A LightningModule without a module of the default name ``model`` may have any other: its only child with parameters
    is the network, or where there are several, the LightningModule itself, if it has a ``forward``.

    Raises:
        MisconfigurationException: it has no such module.
    """
    network = getattr(pl_module, name, None) if name else pl_module
    if name == "model" and not isinstance(network, nn.Module):
        network = _only_network(pl_module)
    if not isinstance(network, nn.Module):
        raise MisconfigurationException(
            f"network={name!r} is not a module of {type(pl_module).__name__}; "
            f"it has {', '.join(name for name, _ in pl_module.named_children()) or 'none'}; see {PAGE}"
        )
    return unwrap(network)


def _only_network(pl_module: pl.LightningModule) -> nn.Module | None:
    learning = [child for child in pl_module.children() if next(child.parameters(), None) is not None]
    if len(learning) == 1:
        return learning[0]
    return None if type(pl_module).forward is pl.LightningModule.forward else pl_module


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
    attributor.check(network_of(pl_module, network))
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


def check_batch(batch: Any, class_names: Sequence[str]) -> None:
    """Raise a MisconfigurationException unless a batch holds images, and a label for each class, or scores."""
    if not isinstance(batch, dict) or not {"image", "label"} <= batch.keys():
        found = f"a dict with {', '.join(map(repr, batch))}" if isinstance(batch, dict) else type(batch).__name__
        raise MisconfigurationException(
            "IBACallback explains batches that are tuples (image, label) or dicts with an 'image' (B, C, H, W) and a "
            f"'label', (B, K) in {{0, 1}}, integer class indices (B,) or scores (B,), not {found}"
        )
    classes = len(class_names)
    if classes and tuple(batch["label"].shape[1:]) != (classes,):
        raise MisconfigurationException(
            f"the labels have shape {tuple(batch['label'].shape)}, but there are {classes} class_names: "
            f"give labels (B, {classes}) in {{0, 1}}"
        )


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
