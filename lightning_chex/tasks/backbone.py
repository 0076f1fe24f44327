"""The networks of the tasks: a timm model, or a U-Net++; or one clear error why there is none."""

import difflib
from collections.abc import Callable, Iterable

import timm
from torch import nn

from lightning_chex.extras import needing

UNET_STRIDE = 32
"""Sides of the images of a U-Net++ are multiples of this: it halves them five times and doubles them again."""


def create_backbone(name: str, num_outputs: int, pretrained: bool) -> nn.Module:
    """Build a timm model for images (B, 3, H, W) with ``num_outputs`` raw outputs.

    Raises:
        ValueError: timm knows no such model; the message lists the nearest names.
        RuntimeError: pretrained weights were asked for and could not be had.
    """
    architecture = name.split(".", 1)[0]  # "densenet121.tv_in1k" names weights too
    if not timm.is_model(architecture):
        raise ValueError(f"backbone={name!r} is unknown to timm; {nearest(architecture, timm.list_models())}")
    if not pretrained:
        return timm.create_model(name, num_classes=num_outputs)
    return _fetched(name, lambda: timm.create_model(name, num_classes=num_outputs, pretrained=True))


def create_unet(encoder: str, num_outputs: int, pretrained: bool) -> nn.Module:
    """Build a U-Net++ (Zhou et al. 2018) for images (B, 3, H, W) with ``num_outputs`` raw maps (B, K, H, W).

    Args:
        encoder: name of an encoder of segmentation-models-pytorch, such as ``resnet18``.
        num_outputs: K.
        pretrained: start the encoder from ImageNet weights; needs a network the first time.

    Raises:
        ValueError: no such encoder; the message lists the nearest names.
        RuntimeError: pretrained weights were asked for and could not be had.
    """
    with needing("segmentation_models_pytorch", "a lung network"):
        import segmentation_models_pytorch as smp  # deferred: only lung networks need it, and it is slow to import

    known = smp.encoders.get_encoder_names()
    if encoder not in known:
        raise ValueError(f"encoder={encoder!r} is unknown to segmentation-models-pytorch; {nearest(encoder, known)}")
    if not pretrained:
        return smp.UnetPlusPlus(encoder, encoder_weights=None, classes=num_outputs)
    return _fetched(encoder, lambda: smp.UnetPlusPlus(encoder, encoder_weights="imagenet", classes=num_outputs))


def head_name(network: nn.Module) -> str:
    """Name of the last layer of a timm model or U-Net++.

    Raises:
        ValueError: it has none, or several.
    """
    find = getattr(network, "get_classifier", None)
    head = getattr(network, "segmentation_head", None) if find is None else find()
    name = next((name for name, module in network.named_modules() if module is head), None)
    if name is None:
        raise ValueError(f"{type(network).__name__} has no single last layer: leave weights and head_lr out")
    return name


def nearest(name: str, known: Iterable[str]) -> str:
    """Name known names like one that is unknown, for a message."""
    return f"nearest names: {', '.join(difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)) or 'none'}"


def _fetched(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except Exception as error:  # the hub's clients raise what they like when there is no network
        raise RuntimeError(
            f"pretrained=True, but the weights of {name!r} could not be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}). They need a network once and are then "
            "cached; set pretrained: false to train from scratch"
        ) from error
