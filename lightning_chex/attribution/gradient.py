"""The plain gradient: how strongly the output reacts to each pixel."""

from captum.attr import Saliency
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.targets import explained_output


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

    unit = "output per unit of the normalised image"
    explains_class = None

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the largest absolute gradient over the channels, (N, H, W)."""

        def output(images: Tensor) -> Tensor:
            # a copy, so that an in-place first layer does not meet the leaf
            return explained_output(model(images.clone()), target)

        return Saliency(output).attribute(images.requires_grad_(), abs=True).amax(1)
