"""Pictures of predicted lungs over their X-rays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lightning_chex.report.pictures import write_figure

_COLUMNS = 6
_TINT = 0.35
# the patient's right and left lung, and the outline of the true masks
_RIGHT = (0.95, 0.45, 0.25)
_LEFT = (0.25, 0.75, 0.95)
_TRUE = (0.95, 0.95, 0.35)


def lung_overlay(image: Tensor, predicted: Tensor, truth: Tensor) -> NDArray[np.uint8]:
    """Tint the predicted lungs, the right one (image left) orange, the left one blue, and outline the true ones yellow.

    Args:
        image: grey values in [0, 1], (H, W).
        predicted: bool (2, H, W).
        truth: bool (2, H, W).

    Returns:
        RGB, uint8 (H, W, 3).
    """
    picture = image.clamp(0, 1)[..., None].repeat(1, 1, 3)
    for lung, colour in zip(predicted, (_RIGHT, _LEFT), strict=True):
        picture = torch.where(lung[..., None], (1 - _TINT) * picture + _TINT * torch.tensor(colour), picture)
    picture = torch.where(_outline(truth)[..., None], torch.tensor(_TRUE), picture)
    return np.round(255 * picture.numpy()).astype(np.uint8)


def write_lung_sheet(overlays: Sequence[NDArray[np.uint8]], path: Path, title: str) -> None:
    """Write overlays as one PNG, row by row."""
    rows = -(-len(overlays) // _COLUMNS)
    sheet = Figure(figsize=(2.2 * _COLUMNS, 2.2 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(sheet)
    sheet.suptitle(title, fontsize=11)
    for number, axis in enumerate(sheet.subplots(rows, _COLUMNS, squeeze=False).flat):
        axis.set_axis_off()
        if number < len(overlays):
            axis.imshow(overlays[number])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figure(path, sheet, dpi=80)


def _outline(masks: Tensor) -> Tensor:
    """The pixels of masks (2, H, W) that touch a pixel outside of their mask, bool (H, W)."""
    # the largest value in each 3 x 3 neighbourhood of the inverted mask
    outside = F.max_pool2d((~masks).float()[:, None], 3, stride=1, padding=1)[:, 0] > 0
    return (masks & outside).any(dim=0)
