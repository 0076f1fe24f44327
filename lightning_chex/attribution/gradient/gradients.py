"""Gradient methods: the plain gradient and Integrated Gradients; and maps of signed relevance."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.blur import blur_matrix
from lightning_chex.attribution.targets import explained_output

Sign = Literal["absolute", "positive", "signed"]

BLACK = (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
"""A black pixel after the ImageNet normalisation of the images."""


class Gradient(Attributor):
    """Absolute gradient of the explained output by the pixels, the largest of the channels (Simonyan et al. 2014).

    Output per unit of the normalised image, >= 0.

    Args:
        batch_size: targets explained at a time; changes no map.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> Gradient().attribute(model, torch.randn(2, 3, 8, 8), torch.tensor([0, 1])).shape
        torch.Size([2, 8, 8])
    """

    title = "Gradient"
    color = "sky"
    description = "The gradient of the output with respect to each pixel."
    unit = "output per unit of the normalised image"
    explains_class = None
    package = "captum"

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the largest absolute gradient over the channels, (N, H, W)."""
        # here, not above: captum takes about as long to import as torch
        from captum.attr import Saliency

        def output(images: Tensor) -> Tensor:
            # a copy, so that an in-place first layer does not meet the leaf
            return explained_output(model(images.clone()), target)

        return Saliency(output).attribute(images.requires_grad_(), abs=True).amax(1)


class IntegratedGradients(Attributor):
    """Integrated Gradients (Sundararajan et al. 2017) from a baseline to the image, summed over the channels.

    Complete: with ``sign="signed"`` a map sums to f(image) - f(baseline), but for the error of ``steps``.

    Args:
        baseline: one value per channel of the normalised image (by default black under the ImageNet normalisation), or
            ``blurred``, the image under a Gaussian of sigma 10 and 19 x 19 taps, as in the perturbation measures.
        steps: points of the Gauss-Legendre quadrature.
        sign: ``absolute``, ``positive`` (what speaks for the class, the rest 0) or ``signed`` (may be negative).
        batch_size: copies of images run at a time; changes no map.
    """

    title = "Integrated Gradients"
    color = "ochre"
    description = "Gradients of the output by the pixels, summed on the way from an empty image to this one."
    unit = "output"
    explains_class = None
    package = "captum"

    def __init__(
        self,
        baseline: Sequence[float] | Literal["blurred"] = BLACK,
        steps: int = 32,
        sign: Sign = "absolute",
        batch_size: int = 16,
    ) -> None:
        super().__init__(batch_size)
        if isinstance(baseline, str) and baseline != "blurred":
            raise ValueError(f"baseline={baseline!r} is unknown; choose blurred, or give one value per channel")
        if steps < 1:
            raise ValueError(f"steps={steps!r} must be at least 1")
        self.baseline: Sequence[float] | str = baseline
        self.steps = steps
        self.sign = check_sign(sign)

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a ValueError if the baseline does not suit the images."""
        self.check_installed()
        if images is not None:
            self.baseline_of(images)

    def baseline_of(self, images: Tensor) -> Tensor:
        """Return the start of the path to each image, (B, C, H, W).

        Raises:
            ValueError: the baseline has another number of channels.
        """
        if isinstance(self.baseline, str):
            rows, columns = (blur_matrix(side, sigma=10.0, radius=9).to(images) for side in images.shape[-2:])
            return rows @ images @ columns.T
        if len(self.baseline) != images.shape[1]:
            raise ValueError(
                f"baseline={tuple(self.baseline)} has {len(self.baseline)} values, the images have {images.shape[1]} "
                "channels: give one value per channel, or blurred"
            )
        return images.new_tensor(self.baseline).view(1, -1, 1, 1).expand_as(images)

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the integrated gradients, (N, H, W)."""
        # here, not above: captum takes about as long to import as torch
        from captum.attr import IntegratedGradients as CaptumIntegratedGradients

        def output(images: Tensor, target: Tensor | None) -> Tensor:
            return explained_output(model(images.clone()), target)

        relevance = CaptumIntegratedGradients(output).attribute(
            images,
            self.baseline_of(images),
            additional_forward_args=(target,),
            n_steps=self.steps,
            internal_batch_size=max(len(images), self.batch_size or 1),
        )
        return signed_map(relevance.float(), self.sign)


def check_sign(sign: Sign) -> Sign:
    """Return ``sign``, or raise a ValueError if it is unknown."""
    if sign not in ("absolute", "positive", "signed"):
        raise ValueError(f"sign={sign!r} is unknown; choose absolute, positive or signed")
    return sign


def signed_map(relevance: Tensor, sign: Sign) -> Tensor:
    """Sum relevance over the channels, then treat its sign.

    Args:
        relevance: (N, C, H, W).
        sign: ``absolute`` and ``positive`` give maps >= 0; ``signed`` leaves the sum as it is.

    Returns:
        (N, H, W).
    """
    summed = relevance.sum(1)
    if sign == "signed":
        return summed
    return summed.abs() if sign == "absolute" else summed.clamp(min=0)
