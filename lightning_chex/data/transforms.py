"""From a grey image of any size to the square, normalised input of a network, with its boxes and masks."""

import math
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

# albumentations asks PyPI for its newest version when imported; reading an X-ray should not need a network
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A  # noqa: E402
import cv2  # noqa: E402

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MIN_VISIBLE = 0.25
"""A box of which augmentation leaves less than this share of its area inside the frame is dropped."""


class BoxError(ValueError):
    """Boxes that are none of their image; the message names the first one."""


def fault_of_box(box: Sequence[float], width: int, height: int) -> str | None:
    """Say what is wrong with a box x1, y1, x2, y2 of an image, in its pixels; a part of it may lie outside."""
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        wrong = "is not finite"
    elif x2 <= x1 or y2 <= y1:
        wrong = "has no extent"
    elif x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        wrong = f"lies outside of the {width} x {height} pixels of its image"
    else:
        return None
    return f"x1, y1, x2, y2 = {', '.join(f'{value:g}' for value in box)} {wrong}; give x1 < x2 and y1 < y2 in pixels"


class ImageTransform:
    """Resize to a square without distortion or cut, augment if asked, normalise; boxes and masks follow the pixels.

    The longest side becomes ``size`` (averaging areas when shrinking, linear when enlarging), black borders of equal
    width fill the shorter one. There is no flip: a mirrored chest has its heart on the wrong side. Augmentation
    draws from torch's generator, so DataLoader workers differ from each other and from epoch to epoch, and
    ``pl.seed_everything(seed, workers=True)`` makes them repeatable.

    Args:
        size: side of the square in pixels.
        augment: draw a random rotation, shift, scale, brightness and contrast for each call.
        rotation_degrees: rotation is drawn from plus or minus this angle.
        translation: shift along each axis is drawn from plus or minus this share of ``size``.
        scale: the factor of magnification is drawn from 1 minus to 1 plus this.
        brightness: grey values are shifted by up to plus or minus this share of the full range.
        contrast: grey values are multiplied by 1 minus to 1 plus this.

    Raises:
        ValueError: ``size`` below 1, or a strength outside its range.

    Example:
        >>> sample = ImageTransform(size=32)(np.zeros((64, 48), dtype=np.uint8), np.float32([[0, 0, 48, 64]]))
        >>> sample["image"].shape, sample["boxes"]
        (torch.Size([3, 32, 32]), tensor([[ 4.,  0., 28., 32.]]))
    """

    def __init__(
        self,
        size: int,
        augment: bool = False,
        rotation_degrees: float = 5.0,
        translation: float = 0.03,
        scale: float = 0.05,
        brightness: float = 0.1,
        contrast: float = 0.1,
    ) -> None:
        if size < 1:
            raise ValueError(f"size is {size}, but an image needs a side of at least 1 pixel")
        if not 0 <= rotation_degrees <= 180:
            raise ValueError(f"rotation_degrees is {rotation_degrees}: give an angle from 0 to 180")
        shares = {"translation": translation, "scale": scale, "brightness": brightness, "contrast": contrast}
        for name, value in shares.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}: give a share from 0 to below 1")
        self.size = size
        self.augment = augment
        # masks are 0/255 and thresholded at one half at the end, like an image edge
        resize = A.LongestMaxSize(
            max_size=size,
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_LINEAR,
            area_for_downscale="image_mask",
        )
        self._resize = resize
        pad = A.PadIfNeeded(min_height=size, min_width=size, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=0)
        steps: list[A.BasicTransform] = [resize]
        if augment:  # brightness before the padding, which stays black
            steps.append(A.RandomBrightnessContrast(brightness_limit=brightness, contrast_limit=contrast, p=1.0))
        steps.append(pad)
        if augment:
            steps.append(
                A.Affine(
                    rotate=(-rotation_degrees, rotation_degrees),
                    translate_percent=(-translation, translation),
                    scale=(1 - scale, 1 + scale),
                    keep_ratio=True,
                    interpolation=cv2.INTER_LINEAR,
                    mask_interpolation=cv2.INTER_LINEAR,
                    border_mode=cv2.BORDER_CONSTANT,
                    fill=0,
                    fill_mask=0,
                    rotate_method="largest_box",
                    p=1.0,
                )
            )
        self._steps = A.Compose(steps, bbox_params=A.BboxParams("pascal_voc", clip=True, min_visibility=MIN_VISIBLE))

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Resize alone, so that the longest side becomes ``size``; the whole transform then gives the same sample.

        Args:
            image: grey, uint8 (H, W).

        Returns:
            uint8 (h, w), the longer of which is ``size``.
        """
        return self._resize(image=image)["image"]

    def __call__(
        self,
        image: np.ndarray,
        boxes: np.ndarray | None = None,
        box_labels: np.ndarray | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, Any]:
        """Transform one image with its boxes and masks.

        A rotated box becomes the smallest upright box around it. Boxes are clipped to the frame; one that keeps
        less than ``MIN_VISIBLE`` of its area there is dropped together with its label.

        Args:
            image: grey, uint8 (H, W).
            boxes: x1, y1, x2, y2 in pixels of ``image``, (N, 4); None means there are none.
            box_labels: class index of each box, (N,); None means class 0 for all.
            masks: name to masks of the image's size, (K, H, W), truth or 0/1.

        Returns:
            ``image`` float32 (3, size, size); ``boxes`` float32 (M, 4) in pixels of the new frame, M <= N;
            ``box_labels`` int64 (M,); and each mask, bool (K, size, size), under its name.

        Raises:
            BoxError: a box without extent or wholly outside of the image, or boxes or labels of another shape.
        """
        boxes = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, dtype=np.float64)
        labels = np.zeros(len(boxes), dtype=np.int64) if box_labels is None else np.asarray(box_labels)
        if len(boxes) and (boxes.shape[1:] != (4,) or labels.shape != (len(boxes),)):
            raise BoxError(f"boxes have shape {boxes.shape}, box_labels {labels.shape}: give (N, 4) and (N,)")
        for number, box in enumerate(boxes.tolist()):
            if fault := fault_of_box(box, image.shape[1], image.shape[0]):
                raise BoxError(f"box {number}: {fault}")
        masks = masks or {}
        if self.augment:  # albumentations has generators of its own, which no global seed reaches
            seed = int(torch.randint(2**62, ()))
            self._steps.set_random_state(np.random.default_rng(seed), random.Random(seed))
        # the fifth column brings back which boxes were kept
        numbered = np.column_stack([boxes, np.arange(len(boxes))])
        out = self._steps(image=image, bboxes=numbered, masks=_planes(masks, image.shape))

        moved = np.asarray(out["bboxes"], dtype=np.float32).reshape(-1, 5)
        sample: dict[str, Any] = {
            "image": _normalise(out["image"]),
            "boxes": torch.from_numpy(moved[:, :4].copy()),
            "box_labels": torch.from_numpy(labels[moved[:, 4].astype(int)].astype(np.int64)),
        }
        start = 0
        for name, planes in masks.items():
            sample[name] = torch.from_numpy(np.stack(out["masks"][start : start + len(planes)]) > 127)
            start += len(planes)
        return sample


def grey_of(image: torch.Tensor) -> torch.Tensor:
    """Return the grey values, 0 to 1, (H, W), of a normalised image (3, H, W)."""
    return (image[0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]).clamp(0, 1)


def _planes(masks: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> list[np.ndarray]:
    for name, planes in masks.items():
        if planes.ndim != 3 or planes.shape[1:] != shape:
            raise ValueError(f"mask {name!r} has shape {planes.shape}, but the image is {shape}: give (K, H, W)")
    return [plane.astype(bool).astype(np.uint8) * 255 for planes in masks.values() for plane in planes]


def _normalise(grey: np.ndarray) -> torch.Tensor:
    """uint8 (H, W) to float32 (3, H, W), the channels equal up to ImageNet's mean and deviation."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (torch.from_numpy(grey.copy()).float() / 255 - mean) / std
