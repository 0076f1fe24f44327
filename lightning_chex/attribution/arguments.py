"""The arguments of every attribution method: what is accepted, in which form methods get it, and what is refused."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_chex.attribution.network.layers import NotFiniteError


def check_model(model: Any) -> nn.Module:
    """Return the model, or raise a TypeError if it is no module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {_kind(model)}: give a torch.nn.Module that takes images (B, C, H, W)")
    return model


def check_images(images: Any) -> Tensor:
    """Return images as they are, or raise an error unless they are floats of shape (B, C, H, W).

    Raises:
        TypeError: no tensor.
        ValueError: another shape or an integer type.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images are a {_kind(images)}: give a float tensor (B, C, H, W)")
    if images.ndim != 4:
        remedy = ": add the batch dimension with images[None]" if images.ndim == 3 else ""
        raise ValueError(f"images have shape {tuple(images.shape)}, not (B, C, H, W){remedy}")
    if not images.is_floating_point():
        raise ValueError(
            f"images have dtype {images.dtype}: give floats, scaled and normalised as the model was trained on"
        )
    if not images[:1].numel() and len(images):
        raise ValueError(f"images have shape {tuple(images.shape)}: every side must be at least 1")
    return images


def images_for(model: nn.Module, images: Any) -> Tensor:
    """Check images and convert them to the precision of the model's weights.

    Args:
        model: the network that will be run on them.
        images: (B, C, H, W); B may be 0.

    Returns:
        The same images; a copy where the weights all have another floating point type.

    Raises:
        TypeError: see `check_images`.
        ValueError: see `check_images`; or they lie on another device than the model, or hold NaN or infinity
            (NotFiniteError).
    """
    images = check_images(images)
    weights = [own for own in model.parameters() if own.is_floating_point()]
    devices = {own.device for own in weights}
    if len(devices) == 1 and images.device not in devices:
        device = devices.pop()
        raise ValueError(f"images are on {images.device}, the model on {device}: give images.to({str(device)!r})")
    finite = images.isfinite().flatten(1).all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise NotFiniteError(
            f"images hold values that are NaN or infinite, image {first} for one: leave it out or inspect the data"
        )
    dtypes = {own.dtype for own in weights}
    return images.to(dtypes.pop()) if len(dtypes) == 1 else images


def target_tensor(target: Any, count: int) -> Tensor | None:
    """Convert the targets that a user gives to a tensor of class indices, int64, or of scores.

    Args:
        target: a tensor of any integer or floating point type, a list or tuple of numbers, a numpy array; a single
            integer stands for the same class of all; None.
        count: how many targets a single integer stands for.

    Raises:
        TypeError: it is none of these.
        ValueError: it is bool or complex, or scores are NaN or infinite.
    """
    if target is None:
        return None
    found = _numbers("target", target, "class indices as integers, one per image, (B,), or several, (B, T)")
    if found.ndim == 0 and not found.is_floating_point():
        found = found.expand(count)
    if found.is_floating_point():
        if not found.isfinite().all():
            raise ValueError("target holds NaN or infinity: leave out images whose score is not known")
        return found
    return found.long()


def row_tensor(rows: Any) -> Tensor | None:
    """Convert the rows that a user gives, in any of the forms of `target_tensor`, to int64 (N,).

    Raises:
        TypeError: they are no numbers.
        ValueError: they are no integers or of another shape.
    """
    if rows is None:
        return None
    found = _numbers("rows", rows, "the index of the image of each target as integers, (N,)")
    if found.ndim != 1 or (found.is_floating_point() and found.numel()):
        raise ValueError(f"rows must be integers (N,), not {found.dtype} {tuple(found.shape)}")
    return found.long()


def _numbers(name: str, value: Any, remedy: str) -> Tensor:
    try:
        # an array may be read-only, which torch warns of
        found = value if isinstance(value, Tensor) else torch.tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}={_short(value)} is a {_kind(value)} of no numbers: give {remedy}") from error
    if found.dtype == torch.bool or found.is_complex():
        raise ValueError(f"{name} has dtype {found.dtype}: give {remedy}")
    if not isinstance(value, Tensor) and found.numel() == 0:
        found = found.long()  # torch takes an empty list for floats
    return found


def _kind(value: Any) -> str:
    return type(value).__name__


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
