"""Grad-CAM: the feature maps of one layer, weighted by the output's mean gradient."""

from typing import Any

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_chex.attribution.attributor import Attributor, frozen
from lightning_chex.attribution.information import image_size
from lightning_chex.attribution.layers import LayerError, check_feature_map, feature_map_layers, get_layer, hooked
from lightning_chex.attribution.targets import explained_output


class GradCAM(Attributor):
    """Grad-CAM (Selvaraju et al. 2017): channels weighted by their mean gradient, ReLU, then bilinear to the image.

    >= 0, in units of the output.

    Args:
        layer: dotted name of a module whose output is (B, C, h, w) and that runs once; by default what DenseNet-121
            pools at its end, where Grad-CAM is CAM.
        batch_size: targets explained at a time; changes no map.
    """

    unit = "output, by Grad-CAM's weights"
    explains_class = None

    def __init__(self, layer: str = "features.norm5", batch_size: int = 16) -> None:
        super().__init__(batch_size)
        self.layer = layer

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a LayerError if the model has no such layer or, with images, if its output is no feature map."""
        module = get_layer(model, self.layer)
        if images is None:
            return
        with frozen(model) as network, torch.no_grad():
            watch = _Watch(self.layer, images)
            try:
                with hooked(module, watch):
                    network(images)
                watch.check_calls()
            except LayerError as error:
                names = ", ".join(feature_map_layers(network, images))
                raise LayerError(f"{error}; layers with a feature map: {names}") from None

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute Grad-CAM, (N, H, W)."""
        module = get_layer(model, self.layer)
        watch = _Watch(self.layer, images)

        def output(images: Tensor) -> Tensor:
            # hooked here, so that the hook runs behind captum's, which keeps the layer's output
            with hooked(module, watch):
                result = model(images.clone())
            watch.check_calls()
            return explained_output(result, target)

        cam = LayerGradCam(output, module).attribute(images.requires_grad_(), relu_attributions=True)
        return F.interpolate(cam.float(), size=image_size(images), mode="bilinear", align_corners=False)[:, 0]


class _Watch:
    """A hook that checks the layer's output and hands on a copy, which an in-place activation may then change."""

    def __init__(self, layer: str, images: Tensor) -> None:
        self.layer, self.images, self.calls = layer, images, 0

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor:
        self.calls += 1
        return check_feature_map(output, self.layer, self.images).clone()

    def check_calls(self) -> None:
        """Raise a LayerError unless the layer ran once."""
        if self.calls != 1:
            raise LayerError(f"layer={self.layer!r} runs {self.calls} times in one forward pass; it has to run once")
