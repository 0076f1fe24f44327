"""IBA as the authors' public code runs it, written plainly from its description: the reference for speed and agreement.

One image at a time, repeated ten times for ten noise draws; the whole network forward and backward at each of ten
steps, its weights not frozen. The loss is the binary cross entropy against a one-hot vector, mean over all outputs,
plus beta times the mean information. The map is read from the last forward pass, before the last update is applied.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLUR = torch.exp(-torch.arange(-2, 3).float().square() / 2)
KERNEL = torch.outer(BLUR, BLUR) / BLUR.sum() ** 2


def blur(mask: Tensor) -> Tensor:
    channels = mask.shape[1]
    kernel = KERNEL.to(mask).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(mask, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def explain_one(
    model: nn.Module, layer: nn.Module, image: Tensor, target: int, mean: Tensor, std: Tensor, beta: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Map of one image (1, C, H, W), as the authors read it and at the final alpha; bits per pixel (H, W) each."""
    generator = torch.Generator(image.device).manual_seed(seed)
    state: dict[str, Tensor] = {}
    floored = std.clamp(min=0.01)

    def divergence(features: Tensor) -> tuple[Tensor, Tensor]:
        lam = blur(torch.sigmoid(state["alpha"]))
        r = (features[:1] - mean) / floored
        variance = (1 - lam) ** 2
        return lam, ((lam * r) ** 2 + variance - torch.log(variance) - 1) / 2

    def restrict(module: nn.Module, inputs: object, features: Tensor) -> Tensor:
        if "alpha" not in state:
            state["alpha"] = torch.full_like(features[:1], 5.0).requires_grad_(True)
            state["features"] = features[:1].detach()
        lam, state["nats"] = divergence(features)
        noise = torch.randn(features.shape, generator=generator, device=features.device) * std + mean
        return lam * features + (1 - lam) * noise

    handle = layer.register_forward_hook(restrict)
    try:
        adam = None
        copies = image.expand(10, -1, -1, -1)
        for _ in range(10):
            output = model(copies)
            if adam is None:
                adam = torch.optim.Adam([state["alpha"]], lr=1.0)
            wanted = torch.zeros_like(output)
            wanted[:, target] = 1
            loss = beta * state["nats"].mean() + F.binary_cross_entropy_with_logits(output, wanted)
            adam.zero_grad()
            loss.backward()
            adam.step()
    finally:
        handle.remove()
    with torch.no_grad():
        final = divergence(state["features"])[1]
    return to_map(state["nats"].detach(), image), to_map(final, image)


def to_map(nats: Tensor, image: Tensor) -> Tensor:
    size = image.shape[-2:]
    cells = nats.sum(1, keepdim=True) / math.log(2) * (nats.shape[-1] * nats.shape[-2] / (size[0] * size[1]))
    return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)[0, 0]
