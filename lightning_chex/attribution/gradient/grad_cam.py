"""Grad-CAM: the feature maps of one layer, weighted by the output's mean gradient."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.network.layers import check_feature_map, check_runs_once, get_layer, hooked
from lightning_chex.attribution.targets import explained_output


class GradCAM(Attributor):
    """Grad-CAM (Selvaraju et al. 2017): channels weighted by their mean gradient, ReLU, then bilinear to the image.

    >= 0, in units of the output.

    Args:
        layer: dotted name of a module whose output is (B, C, h, w) and that runs once; by default what DenseNet-121
            pools at its end, where Grad-CAM is CAM.
        batch_size: targets explained at a time; changes no map.
    """

    title = "Grad-CAM"
    color: str | None = "purple"
    description = (
        "The feature channels of a deep layer, weighted by the gradient of the output with respect to them; coarse."
    )
    unit = "output, by Grad-CAM's weights"
    explains_class = None
    package = "captum"

    def __init__(self, layer: str = "features.norm5", batch_size: int = 16) -> None:
        super().__init__(batch_size)
        self.layer = layer

    @property
    def layers(self) -> Sequence[str]:
        """The layer whose feature maps are weighted."""
        return (self.layer,)

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute Grad-CAM, (N, H, W)."""
        # here, not above: captum takes about as long to import as torch
        from captum.attr import LayerGradCam

        module = get_layer(model, self.layer)
        calls = 0

        def copied(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            nonlocal calls
            calls += 1
            return check_feature_map(output, self.layer, images).clone()  # an in-place activation may change the copy

        def output(images: Tensor) -> Tensor:
            # hooked here, so that the hook runs behind captum's, which keeps the layer's output
            with hooked(module, copied):
                result = model(images.clone())
            check_runs_once(self.layer, calls)
            return explained_output(result, target)

        cam = LayerGradCam(output, module).attribute(images.requires_grad_(), relu_attributions=True)
        return F.interpolate(cam.float(), size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
