"""SmoothGrad: the gradient, averaged over noisy copies of the image."""

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.targets import explained_output


class SmoothGrad(Attributor):
    """Mean gradient over noisy copies of the image, then absolute, the largest of the channels (Smilkov et al. 2017).

    Output per unit of the normalised image, >= 0. All images of all calls meet the same noise, scaled to each image's
    range: a map depends on the image, its target and ``seed`` alone, and the global random state is not used.

    Args:
        samples: noisy copies.
        noise: standard deviation of the noise, as a share of the image's range (largest less smallest value).
        seed: of the noise.
        batch_size: targets explained at a time; changes no map.
    """

    title = "SmoothGrad"
    description = "The mean gradient over noisy copies of the image."
    unit = "output per unit of the normalised image"
    explains_class = None
    package = "captum"

    def __init__(self, samples: int = 25, noise: float = 0.15, seed: int = 0, batch_size: int = 16) -> None:
        super().__init__(batch_size)
        if samples < 1:
            raise ValueError(f"samples={samples!r} must be at least 1")
        if not noise >= 0:
            raise ValueError(f"noise={noise!r} must be at least 0, a share of the image's range")
        self.samples = samples
        self.noise = noise
        self.seed = seed

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the largest absolute mean gradient over the channels, (N, H, W)."""
        # here, not above: captum takes about as long to import as torch
        from captum.attr import Saliency

        def output(noisy: Tensor) -> Tensor:
            # a copy, so that an in-place first layer does not meet the leaf
            return explained_output(model(noisy.clone()), target)

        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same noise on every device
        deviation = self.noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        total = torch.zeros_like(images, dtype=torch.float32)
        for _ in range(self.samples):
            noise = torch.randn(images.shape[1:], generator=generator).to(images)
            noisy = (images + deviation * noise).detach().requires_grad_()
            total += Saliency(output).attribute(noisy, abs=False)
        return (total / self.samples).abs().amax(1)
