"""The input layer of a network that knows other images, made to see ours: grey, by ImageNet's mean and deviation."""

from collections.abc import Mapping, Sequence

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

GREY_RANGE = 1024.0
"""torchxrayvision's images are grey values from -1024 (black) to 1024 (white)."""

CONVOLUTION = "features.conv0.weight"
MEAN = "features.norm0.running_mean"
VARIANCE = "features.norm0.running_var"


def grey_weights() -> Tensor:
    """Weights w of the three channels x with sum(w x) = 1024 (2 g - 1) for every grey value g in [0, 1].

    Channel c of a sample is x_c = (g - mean_c) / std_c. As the means differ, no constant is needed, so that zero
    padding, all x_c = 0, is sum(w x) = 0 too, the grey of 0.5 with which torchxrayvision's convolutions are padded.
    Of all such weights these are the smallest.

    Returns:
        float64 (3,).

    Example:
        >>> grey = torch.tensor([[0.0], [0.75], [1.0]])
        >>> x = (grey - torch.tensor(IMAGENET_DEFAULT_MEAN)) / torch.tensor(IMAGENET_DEFAULT_STD)
        >>> torch.round(x.double() @ grey_weights()).tolist()
        [-1024.0, 512.0, 1024.0]
    """
    return _conditions_met(torch.tensor([[2 * GREY_RANGE, GREY_RANGE]], dtype=torch.float64))[0]


def from_normalised(kernel: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn the first convolution of a network for images by another mean and deviation into one for ours.

    For every grey image it gives what it gave for the same image in the other normalisation, at the padding too.

    Args:
        kernel: (F, 3, k, k).
        mean: of the network's images, grey values from 0 to 1, one a channel.
        std: their deviation.

    Returns:
        (F, 3, k, k).
    """
    means, deviations = torch.tensor([list(mean), list(std)], dtype=torch.float64)
    weights = kernel.double().movedim(1, -1) / deviations  # (F, k, k, 3), of the grey value in each channel
    wanted = torch.stack([weights.sum(-1), (weights * means).sum(-1)], dim=-1)
    return _conditions_met(wanted).movedim(-1, 1).to(kernel.dtype)


def _conditions_met(wanted: Tensor) -> Tensor:
    """Smallest weights of our channels with a slope over the grey value and a fall at black, (..., 2) to (..., 3)."""
    mean, std = torch.tensor([IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD], dtype=torch.float64)
    return wanted @ torch.linalg.pinv(torch.stack([1 / std, mean / std])).T


def from_grey(tensors: Mapping[str, Tensor], epsilon: float) -> dict[str, Tensor]:
    """Turn the input layer of a DenseNet of one channel in [-1024, 1024] into one of our three.

    In evaluation mode the network computes on our image what it computed on the same image in its own range. What
    the convolution gives is divided, channel by channel, by a power of two near its deviation, and the statistics of
    the batch normalisation behind it with it: weights a thousand times as large as others could not be fine-tuned.

    Args:
        tensors: a state dict with the names of torchvision and timm, `CONVOLUTION` of shape (F, 1, k, k).
        epsilon: of the batch normalisation.

    Returns:
        A copy with another `CONVOLUTION` (F, 3, k, k), `MEAN` and `VARIANCE`.
    """
    variance = tensors[VARIANCE].double()
    unit = 2.0 ** (variance + epsilon).sqrt().log2().floor().clamp(min=0)
    kernel = tensors[CONVOLUTION].double() * grey_weights()[None, :, None, None] / unit[:, None, None, None]
    return {
        **tensors,
        CONVOLUTION: kernel.float(),
        MEAN: (tensors[MEAN].double() / unit).float(),
        # so that variance + epsilon is divided exactly
        VARIANCE: ((variance + epsilon) / unit.square() - epsilon).float(),
    }
