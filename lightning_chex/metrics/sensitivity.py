"""Sensitivity-N: does the sum of a map under a mask tell how much the score drops when the mask is taken out?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_chex.metrics.correlation import is_constant, pearson
from lightning_chex.metrics.forward import CHUNK, Predict, check_maps, scores_of_copies


def mask_sizes(pixels: int, count: int = 50) -> list[int]:
    """Numbers of pixels to mask, evenly spaced on a logarithmic axis from 1 to all but one.

    Never all of them: then every mask is the same one, and nothing correlates.

    Args:
        pixels: of the image, at least 2.
        count: how many sizes before equal ones are joined, >= 1.

    Returns:
        At most ``count`` increasing integers in [1, pixels - 1].

    Raises:
        ValueError: a number outside its range.

    Example:
        >>> mask_sizes(1001, count=4)
        [1, 10, 100, 1000]
    """
    if pixels < 2 or count < 1:
        raise ValueError(f"pixels={pixels!r} must be at least 2 and count={count!r} at least 1")
    return sorted({round((pixels - 1) ** (i / max(count - 1, 1))) for i in range(count)})


def sensitivity_n(
    predict: Predict,
    images: Tensor,
    saliency: Tensor,
    sizes: Sequence[int],
    *,
    target: Tensor | None = None,
    masks: int = 30,
    value: float | Tensor = 0.0,
    chunk: int = CHUNK,
    seed: int = 0,
) -> Tensor:
    """Correlate, per image and mask size, the map's sum under random masks with the drop of the score.

    The masks are the same for all images and maps, so methods are compared on equal ones; they are drawn on the CPU, so
    every device uses the same.

    Args:
        predict: images (R, C, H, W) to scores (R,); with a target, to (R, K). In evaluation mode.
        images: (N, C, H, W), as the network takes them.
        saliency: (N, H, W), finite, on the same device, any scale.
        sizes: numbers of pixels to mask, each in [1, H W - 1], as from ``mask_sizes``.
        target: int64 (N,), the column of ``predict``'s output that each image is judged by.
        masks: random masks per size, >= 3; the paper's authors took 30 for classes, 100 for regression.
        value: what masked pixels become, in all channels; a number (0 is the mean grey of normalised images) or a
            tensor that broadcasts to the images.
        chunk: copies in one forward pass.
        seed: of the masks.

    Returns:
        float64 (N, len(sizes)) in [-1, 1]. 0 where the sums do not vary but the scores do: the map says nothing. NaN
        where the scores do not vary, up to rounding: no map could be judged.

    Raises:
        ValueError: shapes that do not match, a map that is not finite, a setting outside its range.

    Source:
        Ancona et al., Towards better understanding of gradient-based attribution methods, ICLR 2018.
    """
    check_maps(images, saliency, target, chunk)
    pixels = images.shape[2] * images.shape[3]
    outside = [n for n in sizes if not 1 <= n < pixels]
    if outside or not sizes:
        raise ValueError(f"sizes={list(sizes)!r}: give at least one, each from 1 to {pixels - 1} for these images")
    if masks < 3:
        raise ValueError(f"masks={masks!r} must be at least 3: two points always correlate")
    try:
        filling = torch.as_tensor(value, dtype=images.dtype, device=images.device).expand_as(images)
    except RuntimeError as error:
        raise ValueError(f"value does not broadcast to the images {tuple(images.shape)}") from error

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([_random_masks(n, masks, pixels, generator) for n in sizes]).to(images.device)
    flat_masks = drawn.flatten(0, 1).view(-1, 1, *images.shape[2:])

    def copies(image: Tensor, variant: Tensor) -> Tensor:
        return torch.where(flat_masks[variant], filling[image], images[image])

    scores = scores_of_copies(predict, copies, len(images), len(flat_masks), target, chunk, images.device)
    result = []
    for index in range(len(sizes)):
        sums = saliency.flatten(1).double() @ drawn[index].double().T
        # the score of the whole image is the same for all masks: the drop correlates as the negative score does
        lost = -scores[:, index * masks : (index + 1) * masks]
        silent = is_constant(sums) & ~is_constant(lost)
        result.append(pearson(sums, lost).masked_fill(silent, 0.0))
    return torch.stack(result, dim=1)


def _random_masks(size: int, count: int, pixels: int, generator: torch.Generator) -> Tensor:
    """Draw masks bool (count, pixels) of exactly ``size`` pixels each, all equally likely."""
    chosen = torch.rand(count, pixels, generator=generator).topk(size, dim=1, sorted=False).indices
    return torch.zeros(count, pixels, dtype=torch.bool).scatter_(1, chosen, True)
