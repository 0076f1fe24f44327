"""Grad-CAM++: Grad-CAM whose weights count every place of a channel that raises the output, however small it is."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_chex.attribution.gradient.grad_cam import GradCAM
from lightning_chex.attribution.network.layers import check_feature_map, check_runs_once, get_layer, hooked
from lightning_chex.attribution.targets import explained_output


class GradCAMPlusPlus(GradCAM):
    """Grad-CAM++ (Chattopadhay et al. 2018): channels weighted by their positive gradients, each with a factor alpha.

    With A the layer's features and S the explained output, Y = exp(S) and everything between them piecewise linear,
    alpha follows from first derivatives alone (Eq. 19): ``g^2 / (2 g^2 + sum(A) g^3)``, g = dS/dA. The map is
    ``ReLU(sum_k A_k sum(alpha ReLU(g)))``, bilinear to the image. The positive factor exp(S) of dY/dA is left out: it
    scales a map as a whole, and overflows for large outputs. >= 0.

    The features should be >= 0, as behind a ReLU: else the denominator of alpha may come near 0.

    Args:
        layer: as for `GradCAM`.
        batch_size: targets explained at a time; changes no map.
    """

    title = "Grad-CAM++"
    # not the colour of Grad-CAM: both may be in one chart
    color = None
    description = "As Grad-CAM, with the channels weighted by their positive gradients."
    unit = "output, by Grad-CAM++'s weights"

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute Grad-CAM++, (N, H, W)."""
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            seen.append(check_feature_map(output, self.layer, images).clone())
            return seen[-1].clone()  # an in-place activation may change the copy

        with hooked(get_layer(model, self.layer), keep):
            result = model(images.requires_grad_().clone())
        check_runs_once(self.layer, len(seen))
        (gradient,) = torch.autograd.grad(explained_output(result, target).sum(), seen[0])
        features = seen[0].detach().float()
        gradient = gradient.float()
        square = gradient.square()
        denominator = 2 * square + features.sum((2, 3), keepdim=True) * square * gradient
        alpha = torch.where(denominator == 0, 0, square / denominator)
        weights = (alpha * gradient.clamp(min=0)).sum((2, 3), keepdim=True)
        cam = (weights * features).sum(1, keepdim=True).clamp(min=0)
        return F.interpolate(cam, size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
