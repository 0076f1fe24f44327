"""The network of a task: a timm model, or one clear error why there is none."""

import difflib

import timm
from torch import nn


def create_backbone(name: str, num_outputs: int, pretrained: bool) -> nn.Module:
    """Build a timm model for images (B, 3, H, W) with ``num_outputs`` raw outputs.

    Raises:
        ValueError: timm knows no such model; the message lists the nearest names.
        RuntimeError: pretrained weights were asked for and could not be had.
    """
    architecture = name.split(".", 1)[0]  # "densenet121.tv_in1k" names weights too
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=4, cutoff=0.5)
        raise ValueError(f"backbone={name!r} is unknown to timm; nearest names: {', '.join(nearest) or 'none'}")
    if not pretrained:
        return timm.create_model(name, num_classes=num_outputs)
    try:
        return timm.create_model(name, num_classes=num_outputs, pretrained=True)
    except Exception as error:  # the hub's clients raise what they like when there is no network
        raise RuntimeError(
            f"pretrained=True, but the weights of {name!r} could not be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}). They need a network once and are then "
            "cached; set pretrained: false to train from scratch"
        ) from error
