"""Many altered copies of many images through a network, in chunks and without a host round trip between them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""Images (R, C, H, W) to scores: (R,), or (R, K) where a target says which column an image is judged by."""

_CHUNK = {"cpu": 16}  # with 64 the system maps the tensors' memory anew at every layer: nearly twice as long a copy
_LARGE_CHUNK = 64  # to fill a GPU


def chunk_for(device: torch.device) -> int:
    """Default number of copies in one forward pass."""
    return _CHUNK.get(device.type, _LARGE_CHUNK)


@torch.no_grad()
def scores_of_copies(
    predict: Predict,
    copies: Callable[[Tensor, Tensor], Tensor],
    images: int,
    variants: int,
    target: Tensor | None,
    chunk: int | None,
    device: torch.device,
) -> Tensor:
    """Score every variant of every image.

    A chunk holds copies of several images when an image has fewer variants than the chunk has room for.

    Args:
        predict: the network, in evaluation mode: no copy's score may depend on the copies beside it.
        copies: image indices (R,) and variant indices (R,), on the device, to inputs (R, C, H, W).
        images: number of images.
        variants: number of variants of each.
        target: int64 (images,), the column of the output each image is judged by; None where the output is (R,).
        chunk: copies in one forward pass, >= 1; None for ``chunk_for`` the device.
        device: where the indices live.

    Returns:
        float32 (images, variants) on the device.

    Raises:
        ValueError: the output has another shape than the target asks for.
    """
    chunk = chunk_for(device) if chunk is None else chunk
    parts = []
    for start in range(0, images * variants, chunk):
        row = torch.arange(start, min(start + chunk, images * variants), device=device)
        image = row // variants
        scores = predict(copies(image, row % variants))
        if target is None:
            expected = scores.ndim == 1
            shape_wanted = "(R,)"
        else:
            expected = scores.ndim == 2
            shape_wanted = "(R, K), as a target was given"
        if not expected or len(scores) != len(row):
            raise ValueError(
                f"predict returned shape {tuple(scores.shape)} for R={len(row)} images: it must return {shape_wanted}"
            )
        if target is not None:
            scores = scores.gather(1, target[image, None])[:, 0]
        parts.append(scores.float())
    return torch.cat(parts).view(images, variants) if parts else torch.zeros(images, variants, device=device)


def check_images(images: Tensor, target: Tensor | None, chunk: int | None) -> None:
    """Raise a ValueError unless images are (N, C, H, W), target is int64 (N,) or None, and chunk >= 1 or None."""
    if images.ndim != 4:
        raise ValueError(f"images {tuple(images.shape)}: give (N, C, H, W)")
    if target is not None and (target.shape != (len(images),) or target.dtype != torch.int64):
        raise ValueError(f"target is {target.dtype} {tuple(target.shape)}: give int64 ({len(images)},), one an image")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk!r} must be at least 1")


def check_saliency(saliency: Tensor, images: int, size: Sequence[int], device: torch.device) -> None:
    """Raise a ValueError unless maps are finite, (images, *size), and on the device of the images."""
    if saliency.shape != (images, *size):
        raise ValueError(
            f"saliency {tuple(saliency.shape)} does not match {images} images of {size[0]} x {size[1]}: give (N, H, W)"
        )
    if saliency.device != device:
        raise ValueError(f"saliency is on {saliency.device}, images on {device}: move them to one device")
    if not saliency.isfinite().all():
        raise ValueError("saliency holds NaN or infinity: its pixels cannot be ranked; leave the map out")


def check_maps(images: Tensor, saliency: Tensor, target: Tensor | None, chunk: int | None) -> None:
    """Do what ``check_images`` and ``check_saliency`` do."""
    check_images(images, target, chunk)
    check_saliency(saliency, len(images), images.shape[2:], images.device)
