"""Lung masks predicted by a trained segmentation network, for images without masks."""

from pathlib import Path

import torch
from torch import Tensor

from lightning_chex.attribution import frozen
from lightning_chex.checkpoints import CheckpointError, read_checkpoint
from lightning_chex.maps.provenance import origin
from lightning_chex.tasks import UNET_STRIDE, SegmentationTask


class LungNetwork:
    """Outlines lungs by a trained `SegmentationTask`.

    Args:
        path: its checkpoint.
        device: where it runs.

    Raises:
        CheckpointError: the file is no checkpoint of such a model.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        read_checkpoint(path, "lungs")
        try:
            # whatever it says: its weights are all in it, none are fetched
            task = SegmentationTask.load_from_checkpoint(path, map_location="cpu", weights_only=True, pretrained=False)
        except Exception as error:  # torch and Lightning raise what they like for other files
            raise CheckpointError(
                f"lungs={str(path)!r} is no checkpoint of a SegmentationTask ({type(error).__name__}): train one with "
                "configs/lung_segmentation.yaml"
            ) from error
        self.task = task.to(device).eval()
        self.identity = origin(path, task)["sha256"]

    def to(self, device: torch.device) -> "LungNetwork":
        """Move the network; returns itself."""
        self.task.to(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Outline the lungs of images (B, 3, H, W), normalised as all samples are, in bool (B, 2, H, W).

        Where both lungs pass one half, the likelier one has the pixel. The images are enlarged to the next size a
        U-Net++ takes, and the probabilities made as large as the images again.
        """
        size = images.shape[-2:]
        fitting = [-(-side // UNET_STRIDE) * UNET_STRIDE for side in size]
        with frozen(self.task), torch.no_grad():
            enlarged = torch.nn.functional.interpolate(images.float(), fitting, mode="bilinear", align_corners=False)
            probabilities = self.task.score(self.task(enlarged))
            probabilities = torch.nn.functional.interpolate(probabilities, size, mode="bilinear", align_corners=False)
        right, left = probabilities.unbind(1)
        return (probabilities >= 0.5) & torch.stack([right >= left, left > right], dim=1)
