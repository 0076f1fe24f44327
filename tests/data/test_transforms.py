import os

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.seed import pl_worker_init_function
from torch.utils.data import DataLoader, Dataset

from lightning_chex.data import ImageTransform
from lightning_chex.data.transforms import IMAGENET_MEAN, IMAGENET_STD, MIN_VISIBLE


def grey(sample: dict) -> np.ndarray:
    """Undo the normalisation: grey values 0 to 255, (H, W)."""
    return ((sample["image"][0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255).numpy()


def bounds(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=float)


def rectangle(shape: tuple[int, int], box: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    x1, y1, x2, y2 = box.astype(int)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.mark.parametrize("shape", [(64, 64), (200, 100), (101, 203), (30, 17), (1, 500)])
@pytest.mark.parametrize("size", [32, 57])
def test_resize_and_padding_follow_plain_arithmetic(shape, size):
    height, width = shape
    factor = size / max(shape)
    new_height, new_width = max(1, round(height * factor)), max(1, round(width * factor))
    top, left = (size - new_height) // 2, (size - new_width) // 2
    box = np.array([0.25 * width, 0.1 * height, width, 0.8 * height])

    out = ImageTransform(size)(np.full(shape, 255, dtype=np.uint8), np.array([box]), np.array([3]))

    assert out["image"].shape == (3, size, size) and out["image"].dtype == torch.float32
    np.testing.assert_allclose(
        bounds(grey(out) > 128), [left, top, left + new_width, top + new_height]
    )  # nothing cut off, borders black and equal
    scale = np.array([new_width / width, new_height / height] * 2)
    np.testing.assert_allclose(out["boxes"][0], box * scale + np.array([left, top] * 2), atol=1e-3)
    assert out["boxes"].dtype == torch.float32
    assert out["box_labels"].dtype == torch.int64 and out["box_labels"].tolist() == [3]


def test_shrinking_averages_areas():
    image = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    means = image.reshape(32, 3, 32, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(grey(ImageTransform(32)(image)), means, atol=0.51)


def test_channels_are_grey_under_imagenet_normalisation():
    out = ImageTransform(8)(np.full((8, 8), 100, dtype=np.uint8))["image"]
    for channel, mean, std in zip(out, IMAGENET_MEAN, IMAGENET_STD, strict=True):
        torch.testing.assert_close(channel, torch.full((8, 8), (100 / 255 - mean) / std))


@pytest.mark.parametrize("seed", range(12))
def test_augmented_boxes_bound_the_pixels_they_held(seed):
    torch.manual_seed(seed)
    boxes = np.array([[50, 40, 110, 160], [120, 100, 190, 130]], dtype=np.float32)
    shape = (240, 200)
    masks = np.stack([rectangle(shape, box) for box in boxes])
    image = (masks.any(axis=0) * 255).astype(np.uint8)
    transform = ImageTransform(160, augment=True, rotation_degrees=15, translation=0.1, scale=0.2)

    out = transform(image, boxes, np.array([4, 7]), {"finding_masks": masks})

    assert out["box_labels"].tolist() == [4, 7]
    assert out["finding_masks"].dtype == torch.bool and out["finding_masks"].shape == (2, 160, 160)
    for box, mask in zip(out["boxes"].numpy(), out["finding_masks"].numpy(), strict=True):
        np.testing.assert_allclose(box, bounds(mask), atol=1.5)  # sharp corners lose a pixel to the cut at one half
    united = out["finding_masks"].numpy().any(axis=0)
    disagreeing = (grey(out) > 128) != united  # contrast moves the half-way grey value, at edges only
    assert disagreeing.mean() < 0.01


def test_every_mask_comes_back_under_its_name():
    shape = (40, 40)
    masks = {"lung_mask": np.zeros((2, *shape), bool), "finding_masks": np.ones((8, *shape), np.uint8)}
    out = ImageTransform(20)(np.zeros(shape, np.uint8), masks=masks)
    assert out["lung_mask"].shape == (2, 20, 20) and not out["lung_mask"].any()
    assert out["finding_masks"].shape == (8, 20, 20) and out["finding_masks"].all()


def test_boxes_are_clipped_to_the_image():
    out = ImageTransform(50)(np.zeros((100, 100), np.uint8), np.array([[-20.0, 10, 60, 130]]))
    np.testing.assert_allclose(out["boxes"], [[0, 5, 30, 50]])


def test_a_box_mostly_shifted_out_of_the_frame_is_dropped_with_its_label():
    boxes = np.array([[0, 0, 20, 20], [40, 40, 60, 60], [85, 30, 100, 60]], dtype=np.float32)
    masks = np.stack([rectangle((100, 100), box) for box in boxes])
    transform = ImageTransform(
        100, augment=True, rotation_degrees=0, translation=0.2, scale=0, brightness=0, contrast=0
    )
    dropped = 0
    for seed in range(60):
        torch.manual_seed(seed)
        out = transform(np.zeros((100, 100), np.uint8), boxes, np.array([10, 11, 12]), {"finding_masks": masks})
        # pure shifts: the share of a box that stays is the share of its pixels that stay
        share = out["finding_masks"].sum(dim=(1, 2)).numpy() / masks.sum(axis=(1, 2))
        kept = out["box_labels"].tolist()
        for label, left in zip([10, 11, 12], share, strict=True):
            if abs(left - MIN_VISIBLE) > 0.05:
                assert (label in kept) == (left > MIN_VISIBLE)
        dropped += 3 - len(kept)
    assert dropped  # the rule was put to use


def landmarks(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Discs near the middle, which no small augmentation moves out: their masks, and their centres (x, y)."""
    height, width = shape
    centres = np.array([[0.35, 0.4], [0.65, 0.35], [0.4, 0.65], [0.6, 0.62]]) * [width, height]
    ys, xs = np.mgrid[:height, :width] + 0.5
    return np.stack([np.hypot(xs - x, ys - y) < 0.05 * width for x, y in centres]), centres


def fitted_affine(centres: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Find the 2 x 3 matrix that moves the landmarks to where they are now, by least squares."""
    moved = [np.argwhere(mask)[:, ::-1].mean(axis=0) + 0.5 for mask in masks]
    return np.linalg.lstsq(np.column_stack([centres, np.ones(len(centres))]), np.array(moved), rcond=None)[0].T


def test_boxes_and_masks_follow_one_affine_map_and_the_rule_for_dropping():
    size, shape = 256, (300, 260)
    rng = np.random.default_rng(0)
    discs, centres = landmarks(shape)
    lungs = np.stack([rectangle(shape, np.array([40, 60, 110, 240])), rectangle(shape, np.array([150, 60, 220, 240]))])
    transform = ImageTransform(size, augment=True, rotation_degrees=12, translation=0.15, scale=0.15)
    dropped = clipped = 0
    for seed in range(60):
        torch.manual_seed(seed)
        x, y = rng.uniform(0, 250, 6), rng.uniform(0, 290, 6)
        boxes = np.column_stack(
            [x, y, np.minimum(x + rng.uniform(8, 90, 6), 260), np.minimum(y + rng.uniform(8, 90, 6), 300)]
        )
        out = transform(np.zeros(shape, np.uint8), boxes, np.arange(6), {"lung_mask": lungs, "finding_masks": discs})

        affine = fitted_affine(centres, out["finding_masks"].numpy())
        turned, stretched = np.degrees(np.arctan2(affine[1, 0], affine[0, 0])), np.hypot(*affine[:, 0]) * 300 / size
        assert abs(turned) < 12.5 and 0.84 < stretched < 1.16
        kept = dict(zip(out["box_labels"].tolist(), out["boxes"].numpy(), strict=True))
        for k, (x1, y1, x2, y2) in enumerate(boxes):
            corners = affine @ np.array([[x1, x2, x2, x1], [y1, y1, y2, y2], [1, 1, 1, 1]])
            around = np.concatenate([corners.min(axis=1), corners.max(axis=1)])
            inside = np.clip(around, 0, size)
            share = np.prod(inside[2:] - inside[:2]) / np.prod(around[2:] - around[:2])
            if abs(share - MIN_VISIBLE) > 0.06:  # nearer than that, the fit of the landmarks decides
                assert (k in kept) == (share > MIN_VISIBLE)
            if k in kept:
                np.testing.assert_allclose(kept[k], inside, atol=1.2)
                assert (kept[k] >= 0).all() and (kept[k] <= size).all() and (kept[k][2:] > kept[k][:2]).all()
            clipped += k in kept and share < 0.99
            dropped += k not in kept
        # masks: the pixels that come from inside a lung, found by going back
        ys, xs = np.mgrid[:size, :size] + 0.5
        back = np.linalg.solve(affine[:, :2], np.stack([xs.ravel(), ys.ravel()]) - affine[:, 2:])
        for mask, (x1, x2) in zip(out["lung_mask"].numpy(), [(40, 110), (150, 220)], strict=True):
            expected = (back[0] > x1) & (back[0] < x2) & (back[1] > 60) & (back[1] < 240)
            assert (expected != mask.ravel()).mean() < 0.01
        right, left = (np.argwhere(mask)[:, 1].mean() for mask in out["lung_mask"].numpy())
        assert right < left  # the zones A B C stay on the image's left
    assert dropped > 5 and clipped > 5  # both happened


def test_no_box_is_a_valid_number_of_boxes():
    for augment in (False, True):
        out = ImageTransform(16, augment=augment)(np.zeros((20, 20), np.uint8), np.zeros((0, 4)), np.zeros(0, int))
        assert out["boxes"].shape == (0, 4) and out["boxes"].dtype == torch.float32
        assert out["box_labels"].shape == (0,) and out["box_labels"].dtype == torch.int64


def test_left_stays_left():
    image = np.zeros((64, 64), np.uint8)
    image[:, 8:24] = 255
    transform = ImageTransform(64, augment=True)
    assert all(bounds(grey(transform(image)) > 128)[2] < 40 for _ in range(30))


def test_padding_stays_black_when_brightness_changes():
    image = np.full((64, 32), 120, np.uint8)
    transform = ImageTransform(64, augment=True, rotation_degrees=0, translation=0, scale=0, brightness=0.5)
    for seed in range(5):
        torch.manual_seed(seed)
        assert np.abs(grey(transform(image))[:, :15]).max() < 0.01


class Squares(Dataset):
    """The same image over and over: what differs between samples is the augmentation."""

    def __init__(self) -> None:
        self.transform = ImageTransform(32, augment=True)
        self.image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(self.image)["image"][0]


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_augmentation_differs_by_worker_and_epoch_and_is_repeatable(workers, persistent):
    def two_epochs(seed: int) -> torch.Tensor:
        pl.seed_everything(seed, workers=True, verbose=False)
        init = pl_worker_init_function if workers else None  # what Lightning hangs in
        loader = DataLoader(
            Squares(), batch_size=1, num_workers=workers, persistent_workers=persistent, worker_init_fn=init
        )
        return torch.cat([torch.cat(list(loader)) for _ in range(2)])

    first, again, other = two_epochs(1), two_epochs(1), two_epochs(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({image.numpy().tobytes() for image in first}) == len(first)  # no two alike


def test_images_without_augmentation_leave_the_generator_alone():
    before = torch.get_rng_state()
    ImageTransform(16)(np.zeros((20, 20), np.uint8))
    assert torch.equal(before, torch.get_rng_state())


def test_albumentations_does_not_ask_the_network_for_its_version():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"rotation_degrees": -1}, {"translation": 1.0}, {"scale": -0.1}, {"contrast": 2}]
)
def test_wrong_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ImageTransform(**{"size": 32, **options})


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="lung_mask"):
        ImageTransform(16)(np.zeros((20, 20), np.uint8), masks={"lung_mask": np.zeros((2, 10, 10), bool)})
