"""Lung masks predicted by a trained segmentation network, for images without masks."""

import math
from pathlib import Path

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
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
            # pretrained=False: the checkpoint holds all weights, and none may be downloaded
            task = SegmentationTask.load_from_checkpoint(path, map_location="cpu", weights_only=True, pretrained=False)
        except Exception as error:  # torch and Lightning raise many types of errors for other files
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
        """Outline the lungs.

        A pixel where both lungs have a probability of at least 0.5 belongs to the likelier one. The images are resized
        to the next multiple of the U-Net++'s stride, and the probabilities back to the size of the images.

        Args:
            images: (B, 3, H, W), normalised as all samples are.

        Returns:
            Right and left lung, bool (B, 2, H, W).
        """
        size = images.shape[-2:]
        fitting = [math.ceil(side / UNET_STRIDE) * UNET_STRIDE for side in size]
        with frozen(self.task), torch.no_grad():
            enlarged = torch.nn.functional.interpolate(images.float(), fitting, mode="bilinear", align_corners=False)
            probabilities = self.task.score(self.task(enlarged))
            probabilities = torch.nn.functional.interpolate(probabilities, size, mode="bilinear", align_corners=False)
        right, left = probabilities.unbind(1)
        return (probabilities >= 0.5) & torch.stack([right >= left, left > right], dim=1)


def load_lung_network(path: str) -> LungNetwork:
    """Load a lung network on the CPU.

    Raises:
        MisconfigurationException: the file is not a checkpoint of a `SegmentationTask`.
    """
    try:
        return LungNetwork(Path(path), torch.device("cpu"))
    except CheckpointError as error:
        raise MisconfigurationException(str(error)) from error
