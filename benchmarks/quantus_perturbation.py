"""Quantus' nearest equivalents of deletion, insertion, Sensitivity-N and ROAD, on grey images of one channel.

Quantus takes every channel for features of its own and its step must divide H x W, so three channels cannot be
exchanged together. X-rays are grey: it is given the first channel, and the network makes the others again.
"""

from collections.abc import Callable

import numpy as np
import quantus
import torch
from torch import Tensor, nn

from lightning_chex.data.transforms import IMAGENET_MEAN, IMAGENET_STD


class OfGrey(nn.Module):
    """A network on the first channel (B, 1, H, W) of grey images normalised as ImageNet's; its last step is ``end``."""

    def __init__(self, model: nn.Module, end: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.end = end
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def three(self, grey: Tensor) -> Tensor:
        return (grey * self.std[0] + self.mean[0] - self.mean) / self.std

    def forward(self, grey: Tensor) -> Tensor:
        return self.end(self.model(self.three(grey)))


def exchanged(arr: np.ndarray, indices: np.ndarray, baseline: np.ndarray, **_: object) -> np.ndarray:
    """Their way to take features (N, I) of arr (N, F) out, with a baseline of its own for each image and pixel."""
    arr, rows = arr.copy(), np.arange(len(arr))[:, None]
    arr[rows, indices] = baseline[rows, indices]
    return arr


class Quantus:
    """The three measures on N images (N, 3, H, W) and maps (N, H, W)."""

    def __init__(self, model: nn.Module, images: Tensor, baseline: Tensor, target: Tensor, step: int) -> None:
        device = images.device
        self.probabilities = OfGrey(model, nn.Sigmoid()).to(device).eval()
        self.logits = OfGrey(model, nn.Identity()).to(device).eval()
        if not torch.allclose(self.probabilities.three(images[:, :1]), images, atol=1e-4):
            raise ValueError("images are not grey: Quantus would be given others")
        self.images, self.baseline = (x[:, :1].cpu().numpy() for x in (images, baseline))
        self.target = target.cpu().numpy()
        self.step = step
        self.device = str(device)

    def _run(self, metric: Callable[..., object], model: nn.Module, images: np.ndarray, saliency: Tensor) -> object:
        return metric(
            model=model,
            x_batch=images,
            y_batch=self.target,
            a_batch=saliency[:, None].cpu().numpy(),
            device=self.device,
            softmax=False,
            channel_first=True,
        )

    def insertion_and_deletion(self, saliency: Tensor) -> tuple[Tensor, Tensor]:
        """Both curves (N, S + 1); PixelFlipping's own begin after the first step."""
        ends = []
        for start, end in ((self.baseline, self.images), (self.images, self.baseline)):
            metric = quantus.PixelFlipping(
                features_in_step=self.step,
                normalise=False,
                perturb_func=exchanged,
                perturb_func_kwargs={"baseline": end.reshape(len(end), -1)},
                disable_warnings=True,
            )
            ends.append(torch.tensor(np.array(self._run(metric, self.probabilities, start, saliency))))
        inserted, deleted = ends
        return torch.cat([deleted[:, -1:], inserted], 1), torch.cat([inserted[:, -1:], deleted], 1)

    def sensitivity(self, saliency: Tensor) -> object:
        metric = quantus.SensitivityN(
            features_in_step=self.step, n_max_percentage=1.0, perturb_baseline=0.0, disable_warnings=True
        )
        return self._run(metric, self.logits, self.images, saliency)

    def road(self, saliency: Tensor, percentages: list[int]) -> object:
        return self._run(
            quantus.ROAD(percentages=percentages, disable_warnings=True), self.logits, self.images, saliency
        )
