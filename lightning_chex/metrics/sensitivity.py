"""Sensitivity-N: does the sum of a map under a mask tell how much the score drops when the mask is taken out?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_chex.metrics.correlation import is_constant, pearson
from lightning_chex.metrics.forward import Predict, check_images, check_maps, check_saliency, scores_of_copies


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


@dataclass(frozen=True)
class MaskedScores:
    """Scores of N images under the same random masks, M of each of S sizes; they judge any number of maps.

    Attributes:
        scores: float32 (N, S, M).
        masks: bool (S, M, H, W), True where a pixel was masked, as from ``random_masks``.
    """

    scores: Tensor
    masks: Tensor

    def select(self, rows: Tensor) -> "MaskedScores":
        """Keep some images, by index int64 (R,) or bool (N,); the masks are shared, not copied."""
        return MaskedScores(self.scores[rows], self.masks)

    def sensitivity(self, saliency: Tensor) -> Tensor:
        """Correlate, per image and mask size, the map's sum under the masks with the drop of the score.

        Args:
            saliency: (N, H, W), finite, on the same device, any scale.

        Returns:
            float64 (N, S) in [-1, 1]. 0 where the sums do not vary but the scores do: the map says nothing. NaN where
            the scores do not vary, up to rounding: no map could be judged.

        Raises:
            ValueError: shapes that do not match, a map that is not finite.
        """
        check_saliency(saliency, len(self.scores), self.masks.shape[2:], self.masks.device)
        flat = saliency.flatten(1).double()
        result = []
        # size by size: all masks at once would be half a gigabyte as float64
        for masks, scores in zip(self.masks.flatten(2), self.scores.unbind(1), strict=True):
            sums = flat @ masks.double().T
            # the score of the whole image is the same for all masks: the drop correlates as the negative score does
            silent = is_constant(sums) & ~is_constant(scores)
            result.append(pearson(sums, -scores).masked_fill(silent, 0.0))
        return torch.stack(result, dim=1)


def random_masks(shape: tuple[int, int], sizes: Sequence[int], count: int = 30, seed: int = 0) -> Tensor:
    """Draw masks of exact sizes, all masks of a size equally likely.

    They are drawn on the CPU, so every device uses the same.

    Args:
        shape: (H, W).
        sizes: numbers of pixels to mask, each in [1, H W - 1], as from ``mask_sizes``.
        count: masks per size, >= 3.
        seed: of the masks.

    Returns:
        bool (len(sizes), count, H, W), on the CPU.

    Raises:
        ValueError: a setting outside its range.
    """
    pixels = shape[0] * shape[1]
    outside = [n for n in sizes if not 1 <= n < pixels]
    if outside or not sizes:
        raise ValueError(f"sizes={list(sizes)!r}: give at least one, each from 1 to {pixels - 1} for these images")
    if count < 3:
        raise ValueError(f"masks={count!r} must be at least 3: two points always correlate")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(len(sizes), count, pixels, dtype=torch.bool)
    for masks, size in zip(drawn, sizes, strict=True):
        chosen = torch.rand(count, pixels, generator=generator).topk(size, dim=1, sorted=False).indices
        masks.scatter_(1, chosen, True)
    return drawn.view(len(sizes), count, *shape)


def masked_scores(
    predict: Predict,
    images: Tensor,
    sizes: Sequence[int],
    *,
    target: Tensor | None = None,
    masks: int = 30,
    value: float | Tensor = 0.0,
    chunk: int | None = None,
    seed: int = 0,
) -> MaskedScores:
    """Score the images under random masks: the expensive half of Sensitivity-N, which no map enters.

    Args:
        predict: images (R, C, H, W) to scores (R,); with a target, to (R, K). In evaluation mode.
        images: (N, C, H, W), as the network takes them.
        sizes: numbers of pixels to mask, each in [1, H W - 1], as from ``mask_sizes``.
        target: int64 (N,), the column of ``predict``'s output that each image is judged by.
        masks: random masks per size, >= 3; the paper's authors took 30 for classes, 100 for regression.
        value: what masked pixels become, in all channels; a number (0 is the mean grey of normalised images) or a
            tensor that broadcasts to the images.
        chunk: copies in one forward pass; None for ``chunk_for`` the device.
        seed: of the masks, which are the same for all images.

    Returns:
        Scores and masks, on the images' device.

    Raises:
        ValueError: shapes that do not match, a setting outside its range.
    """
    check_images(images, target, chunk)
    height, width = images.shape[2:]
    drawn = random_masks((height, width), sizes, masks, seed).to(images.device)
    try:
        filling = torch.as_tensor(value, dtype=images.dtype, device=images.device).expand_as(images)
    except RuntimeError as error:
        raise ValueError(f"value does not broadcast to the images {tuple(images.shape)}") from error
    of_variant = drawn.flatten(0, 1)[:, None]

    def copies(image: Tensor, variant: Tensor) -> Tensor:
        return torch.where(of_variant[variant], filling[image], images[image])

    scores = scores_of_copies(predict, copies, len(images), len(of_variant), target, chunk, images.device)
    return MaskedScores(scores.view(len(images), len(sizes), masks), drawn)


def sensitivity_n(
    predict: Predict,
    images: Tensor,
    saliency: Tensor,
    sizes: Sequence[int],
    *,
    target: Tensor | None = None,
    masks: int = 30,
    value: float | Tensor = 0.0,
    chunk: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Correlate, per image and mask size, the map's sum under random masks with the drop of the score.

    For several maps of the same images, take ``masked_scores`` once and its ``sensitivity`` for each map.

    Args:
        predict: see ``masked_scores``; so are target, masks, value, chunk and seed.
        images: (N, C, H, W).
        saliency: (N, H, W), finite, on the same device, any scale.
        sizes: numbers of pixels to mask, each in [1, H W - 1], as from ``mask_sizes``.

    Returns:
        float64 (N, len(sizes)) in [-1, 1], as ``MaskedScores.sensitivity``.

    Raises:
        ValueError: shapes that do not match, a map that is not finite, a setting outside its range.

    Source:
        Ancona et al., Towards better understanding of gradient-based attribution methods, ICLR 2018.
    """
    check_maps(images, saliency, target, chunk)
    scored = masked_scores(predict, images, sizes, target=target, masks=masks, value=value, chunk=chunk, seed=seed)
    return scored.sensitivity(saliency)
