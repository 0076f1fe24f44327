"""Maps from the square input of the network back to the pixels of the image file."""

from torch import Tensor
from torch.nn import functional as F


def source_window(size: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the position of the image within the square that ``ImageTransform`` resized it into.

    Args:
        size: side of the square.
        height: of the image file, in pixels.
        width: of the image file.

    Returns:
        top, left, height and width within the square.

    Example:
        >>> source_window(32, height=64, width=48)
        (0, 4, 32, 24)
    """
    scale = size / max(height, width)
    # at least one pixel: a very narrow image would vanish
    inner_height = max(1, round(height * scale))
    inner_width = max(1, round(width * scale))
    top = (size - inner_height) // 2
    left = (size - inner_width) // 2
    return top, left, inner_height, inner_width


def to_source_frame(saliency: Tensor, height: int, width: int) -> Tensor:
    """Bring a map into the frame of the image file: cut off the borders, resize bilinearly.

    Values stay as they are, so bits per pixel become bits per pixel of the network's input, not of the file.

    Args:
        saliency: (S, S), a map in the frame of the network's input.
        height: of the image file, in pixels.
        width: of the image file.

    Returns:
        float32 (height, width).

    Example:
        >>> import torch
        >>> to_source_frame(torch.ones(32, 32), height=64, width=48).shape
        torch.Size([64, 48])
    """
    top, left, inner_height, inner_width = source_window(saliency.shape[-1], height, width)
    window = saliency[top : top + inner_height, left : left + inner_width].float()
    return F.interpolate(window[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
