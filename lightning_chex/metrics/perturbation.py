"""Insertion and deletion: how fast the score rises and falls with a map's strongest pixels."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from lightning_chex.metrics.forward import Predict, check_maps, scores_of_copies


@dataclass(frozen=True)
class PerturbationCurves:
    """Scores along the way, for N images and S steps.

    Attributes:
        insertion: float32 (N, S + 1), from the baseline on, the strongest pixels first.
        deletion: float32 (N, S + 1), from the image on, the strongest pixels first.
        share: float32 (S + 1,), share of the image's pixels exchanged, from 0 to the fraction asked for.
    """

    insertion: Tensor
    deletion: Tensor
    share: Tensor

    @property
    def insertion_auc(self) -> Tensor:
        """Area under the insertion curve, (N,); higher is better."""
        return area_under_curve(self.insertion, self.share)

    @property
    def deletion_auc(self) -> Tensor:
        """Area under the deletion curve, (N,); lower is better."""
        return area_under_curve(self.deletion, self.share)

    def up_to(self, share: float) -> "PerturbationCurves":
        """Cut the curves off, as if they had been run with ``fraction=share``; the paper's authors stop at 0.5.

        Args:
            share: a point of the curves, above 0. 0.5 is one where ``step`` divides half of the pixels: 224 does for
                224 x 224 pixels, the authors' 25 does not.

        Returns:
            The curves from 0 to the share, without a copy; their areas are means over that range.

        Raises:
            ValueError: the curves have no such point.
        """
        found = torch.isclose(self.share, torch.full_like(self.share, share), rtol=0, atol=1e-6).nonzero()
        if not len(found) or found[0] == 0:
            raise ValueError(
                f"share={share!r} is no point of these curves: run them with a step that divides this share of the "
                "pixels, or with fraction set to it"
            )
        end = int(found[0]) + 1
        return PerturbationCurves(self.insertion[:, :end], self.deletion[:, :end], self.share[:end])


def area_under_curve(curves: Tensor, share: Tensor) -> Tensor:
    """Area by the trapezoid rule over an axis scaled to 0..1, so that it is a mean score whatever the range.

    Args:
        curves: (N, S + 1).
        share: increasing from 0, (S + 1,).

    Returns:
        (N,), in the unit of the score.

    Example:
        >>> area_under_curve(torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([0.0, 0.25, 0.5]))
        tensor([0.7500])
    """
    return torch.trapezoid(curves, share / share[-1], dim=1)


def blurred(images: Tensor, kernel: int = 19, sigma: float = 10.0) -> Tensor:
    """Blur images with a Gaussian, reflecting at the border: the baseline of the paper's authors.

    Args:
        images: (N, C, H, W).
        kernel: odd number of taps; half of it must be less than either side of the image.
        sigma: in pixels, > 0.

    Returns:
        Like the images.

    Raises:
        ValueError: the kernel is even or too large for the images, or sigma is not positive.
    """
    if kernel < 1 or kernel % 2 == 0 or kernel // 2 >= min(images.shape[-2:]):
        height, width = images.shape[-2:]
        raise ValueError(
            f"kernel={kernel!r} does not suit images of {height} x {width}: odd, and half of it below both"
        )
    if not sigma > 0:
        raise ValueError(f"sigma={sigma!r} must be above 0")
    # here, not above: the other measures need no torchvision
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(images, [kernel, kernel], [sigma, sigma])


def pixel_ranks(saliency: Tensor, seed: int = 0) -> Tensor:
    """Place of every pixel in the order of its map, the strongest first.

    Equal pixels are ordered by one pseudo-random permutation of the image's pixels, the same for every map of that
    size. Ordered by position, a constant part of a map would favour the image's top; so a constant map is one random
    order. The permutation is drawn on the CPU: every device gives the same ranks.

    Args:
        saliency: (N, H, W), finite.
        seed: of the permutation.

    Returns:
        int64 (N, H, W), each map a permutation of 0 .. H W - 1.

    Example:
        >>> pixel_ranks(torch.tensor([[[1.0, 5.0], [2.0, 3.0]]]))
        tensor([[[3, 0],
                 [2, 1]]])
    """
    flat = saliency.flatten(1)
    shuffle = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed)).to(flat.device)
    order = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(saliency.shape)


def insertion_deletion(
    predict: Predict,
    images: Tensor,
    saliency: Tensor,
    *,
    target: Tensor | None = None,
    baseline: Tensor | None = None,
    step: int = 25,
    fraction: float = 1.0,
    chunk: int | None = None,
    seed: int = 0,
) -> PerturbationCurves:
    """Exchange pixels between image and baseline in the order of the map, and follow the score.

    Insertion starts at the baseline and puts the image's pixels in; deletion starts at the image and takes them out.
    With ``fraction=1`` insertion ends at the image and deletion at the baseline, and either is scored once for both.
    Every step exchanges ``step`` further pixels, all channels at once; the last one exchanges what is left, at least
    one pixel.

    Args:
        predict: images (R, C, H, W) to scores (R,), a probability or a regression's severity; with a target, to
            (R, K). In evaluation mode.
        images: (N, C, H, W), as the network takes them.
        saliency: (N, H, W), on the same device, any scale; ties are broken as in ``pixel_ranks``.
        target: int64 (N,), the column of ``predict``'s output that each image is judged by.
        baseline: (N, C, H, W), or what broadcasts to it; None for ``blurred(images)``.
        step: pixels a step, >= 1.
        fraction: share of the pixels to exchange, in (0, 1]; the paper's authors used 0.5.
        chunk: copies in one forward pass; None for ``chunk_for`` the device.
        seed: of the order of equal pixels.

    Returns:
        The curves, on the images' device.

    Raises:
        ValueError: shapes that do not match, a map that is not finite, a setting outside its range.

    Source:
        Petsiuk et al., RISE, BMVC 2018.
    """
    check_maps(images, saliency, target, chunk)
    if step < 1:
        raise ValueError(f"step={step!r} must be at least 1 pixel")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r} must lie in (0, 1]")
    if baseline is None:
        start = blurred(images)
    else:
        try:
            start = baseline.to(images).expand_as(images)
        except RuntimeError as error:
            raise ValueError(
                f"baseline {tuple(baseline.shape)} does not broadcast to the images {tuple(images.shape)}"
            ) from error
    ranks = pixel_ranks(saliency, seed)[:, None]
    pixels = images.shape[2] * images.shape[3]
    last = max(1, round(fraction * pixels))
    counts = torch.arange(ceil(last / step) + 1, device=images.device).mul(step).clamp(max=last)
    # where every pixel is exchanged, deletion begins where insertion ends, and the other way round
    shared = last == pixels
    exchanges = torch.cat([counts, counts[1:-1] if shared else counts])

    def copies(image: Tensor, variant: Tensor) -> Tensor:
        # the first variants insert, the others delete
        exchanged = ranks[image] < exchanges[variant][:, None, None, None]
        from_image = exchanged == (variant < len(counts))[:, None, None, None]
        return torch.where(from_image, images[image], start[image])

    scores = scores_of_copies(predict, copies, len(images), len(exchanges), target, chunk, images.device)
    insertion = scores[:, : len(counts)]
    deletion = scores[:, len(counts) :]
    if shared:
        deletion = torch.cat([insertion[:, -1:], deletion, insertion[:, :1]], dim=1)
    return PerturbationCurves(insertion, deletion, counts.float() / pixels)
