"""ROAD: the score while pixels are removed and imputed from their neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_chex.metrics.forward import Predict, check_maps, scores_of_copies
from lightning_chex.metrics.imputation import linear_imputation
from lightning_chex.metrics.perturbation import pixel_ranks

PERCENTAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class RoadCurves:
    """Scores after removal, for N images and P shares of their pixels.

    Attributes:
        morf: float32 (N, P), the most relevant pixels removed first.
        lerf: float32 (N, P), the least relevant pixels removed first.
        share: float32 (P,), share of the image's pixels removed.
    """

    morf: Tensor
    lerf: Tensor
    share: Tensor

    @property
    def morf_mean(self) -> Tensor:
        """Mean score over the shares, the most relevant first, (N,); lower is better."""
        return self.morf.mean(1)

    @property
    def lerf_mean(self) -> Tensor:
        """Mean score over the shares, the least relevant first, (N,); higher is better."""
        return self.lerf.mean(1)

    @property
    def difference(self) -> Tensor:
        """``lerf_mean - morf_mean``, (N,); higher is better, 0 is expected of a map that says nothing."""
        return self.lerf_mean - self.morf_mean


def road(
    predict: Predict,
    images: Tensor,
    saliency: Tensor,
    *,
    target: Tensor | None = None,
    percentages: Sequence[float] = PERCENTAGES,
    noise: float = 0.01,
    chunk: int | None = None,
    seed: int = 0,
) -> RoadCurves:
    """Remove pixels in the order of the map, from either end, and follow the score.

    A pixel is removed by ``linear_imputation`` from those that are left, and noise on top: what remains then tells less
    about which pixels were taken out than a blur or one grey does. The noise is one field, the same for all images,
    shares and maps, so methods are compared on equal terms; it is drawn on the CPU, so every device uses the same.

    Args:
        predict: images (R, C, H, W) to scores (R,), a probability or a regression's severity; with a target, to
            (R, K). In evaluation mode.
        images: (N, C, H, W), finite, as the network takes them.
        saliency: (N, H, W), on the same device, any scale; ties are broken as in ``pixel_ranks``.
        target: int64 (N,), the column of ``predict``'s output that each image is judged by.
        percentages: shares of the pixels to remove, each in (0, 1); rounded to pixels, at least one is removed and one
            is left.
        noise: standard deviation of the noise, in the unit of the images, >= 0.
        chunk: copies in one forward pass; None for ``chunk_for`` the device.
        seed: of the noise and of the order of equal pixels.

    Returns:
        The curves, on the images' device.

    Raises:
        ValueError: shapes that do not match, a map or an image that is not finite, a setting outside its range.

    Source:
        Rong et al., A consistent and efficient evaluation strategy for attribution methods, ICML 2022. They report the
        accuracy over a data set; here each image keeps its own score, which a regression has as well.
    """
    check_maps(images, saliency, target, chunk)
    outside = [share for share in percentages if not 0 < share < 1]
    if outside or not percentages:
        raise ValueError(f"percentages={list(percentages)!r}: give at least one, each between 0 and 1")
    if not noise >= 0:
        raise ValueError(f"noise={noise!r} must be at least 0")
    pixels = images.shape[2] * images.shape[3]
    if pixels < 2:
        raise ValueError(f"images {tuple(images.shape)} have a single pixel: there is nothing to fill it from")
    counts = torch.tensor([min(max(1, round(share * pixels)), pixels - 1) for share in percentages])
    share = (counts.float() / pixels).to(images.device)
    counts = counts.to(images.device)
    generator = torch.Generator().manual_seed(seed)
    field = noise * torch.randn(images.shape[1:], generator=generator).to(images)
    ranks = pixel_ranks(saliency, seed)

    def copies(image: Tensor, variant: Tensor) -> Tensor:
        # the first variants remove from the strongest pixel on, the others from the weakest
        rank = ranks[image]
        last = (variant >= len(counts))[:, None, None]
        missing = torch.where(last, pixels - 1 - rank, rank) < counts[variant % len(counts)][:, None, None]
        return linear_imputation(images[image], missing).addcmul(field, missing[:, None].to(field))

    scores = scores_of_copies(predict, copies, len(images), 2 * len(counts), target, chunk, images.device)
    return RoadCurves(scores[:, : len(counts)], scores[:, len(counts) :], share)
