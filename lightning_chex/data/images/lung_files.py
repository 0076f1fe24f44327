"""Lung masks on disk: finding their files, reading them, and checking them against their images."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few, image_size, read_grey, resolve_inside
from lightning_chex.data.images.lung_masks import Mask, split_lungs
from lightning_chex.data.table.files import contents

MaskFiles = tuple[str | None, ...]
"""Paths of an image's lung masks: one of both lungs, or one of the right and one of the left; None is absent."""


def find_masks(root: Path, pattern: str, follow_links: bool = False) -> dict[str, str]:
    """List the mask files of a folder.

    Args:
        root: the data root, which has to contain all masks.
        pattern: folder and file name below ``root``, with ``{id}`` in the name for the id of the image.
        follow_links: let folder and files be links to somewhere else.

    Returns:
        Image id to path; files with other names are ignored.

    Raises:
        DataError: no such folder, or one outside ``root``.
    """
    parts = PurePosixPath(pattern)
    before, after = parts.name.split("{id}")
    resolve_inside(root, str(parts.parent), follow_links)
    folder = root / parts.parent
    if not folder.is_dir():
        raise DataError(f"no folder {parts.parent} with lung masks in {root}, which holds {contents(root)}")
    found: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("._"):  # see find_images
                continue
            if len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after):
                if entry.is_symlink():
                    resolve_inside(root, str(parts.parent / name), follow_links)
                found[name[len(before) : len(name) - len(after)]] = entry.path
    return found


def read_lungs(files: MaskFiles) -> Mask:
    """Read the lungs of one image.

    A pixel belongs to a mask from half the largest value in the file on, whether that is 1 or 255.

    Args:
        files: one file that holds both lungs, or one for the right and one for the left; not all None.

    Returns:
        bool (2, H, W), the patient's right lung (image left) first. A lung whose file is None, or that a mask of both
        does not show, is empty.

    Raises:
        DataError: a file cannot be read or marks no pixel, or two files differ in size.
    """
    planes = [None if path is None else _read_plane(path) for path in files]
    shapes = {plane.shape for plane in planes if plane is not None}
    if len(shapes) > 1:
        raise DataError(f"{files[0]} and {files[1]} differ in size, but are masks of one image; replace one")
    if len(planes) == 1 and planes[0] is not None:
        return split_lungs(planes[0])
    (shape,) = shapes
    return np.stack([np.zeros(shape, bool) if plane is None else plane for plane in planes])


def lungs_of_image(files: MaskFiles, shape: tuple[int, int]) -> Mask:
    """Read the lungs of one image at the image's resolution.

    Args:
        files: see ``read_lungs``; all None for an image without outlined lungs.
        shape: height and width of the image.

    Returns:
        bool (2, H, W).

    Raises:
        DataError: see ``read_lungs``, or the masks have other proportions than the image.
    """
    if all(path is None for path in files):
        return np.zeros((2, *shape), bool)
    lungs = _fitting_lungs(files, shape)
    if lungs.shape[1:] == shape:
        return lungs
    how = cv2.INTER_AREA if shape[0] < lungs.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(lung.astype(np.float32), shape[::-1], interpolation=how) for lung in lungs]) >= 0.5


def check_lungs(paths: Sequence[str], files: Sequence[MaskFiles]) -> np.ndarray:
    """Check, before training, that lung masks fit their images; decodes every mask once.

    Args:
        paths: an image each.
        files: the masks of each image.

    Returns:
        Which lungs are outlined, bool (N, 2), the patient's right lung first.

    Raises:
        DataError: masks are unreadable or empty, do not fit their image, or lie in the wrong order.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # decoders run beside Python
        looks = list(pool.map(_look, paths, files))
    problems = [look for look in looks if isinstance(look, str)]
    if problems:
        raise DataError(f"{len(problems)} of {len(paths)} images have no usable lung mask: {first_few(problems)}")
    return np.array(looks, dtype=bool).reshape(-1, 2)


def _look(path: str, files: MaskFiles) -> tuple[bool, bool] | str:
    """Return the lungs that the masks of an image show, or the problem with them."""
    if all(file is None for file in files):
        return False, False
    try:
        right, left = _fitting_lungs(files, image_size(path)[::-1])
    except DataError as error:
        return str(error)
    if right.any() and left.any() and right.nonzero()[1].mean() > left.nonzero()[1].mean():
        return (
            f"{files[0]} lies to the right of {files[1]} in the image: in masks, name the patient's right lung "
            "(image left) first"
        )
    return bool(right.any()), bool(left.any())


def _fitting_lungs(files: MaskFiles, shape: tuple[int, int]) -> Mask:
    """Read lungs at their own resolution, whose proportions have to be those of the image."""
    lungs = read_lungs(files)
    (mask_height, mask_width) = lungs.shape[1:]
    (height, width) = shape
    rows = min(mask_height, height)
    columns = min(mask_width, width)
    # up to a pixel of the coarser one, at equal heights or at equal widths: half a row, lost when a wide image was
    # resized, is many columns
    if (
        abs(mask_width * rows / mask_height - width * rows / height) > 1
        and abs(mask_height * columns / mask_width - height * columns / width) > 1
    ):
        raise DataError(
            f"{next(path for path in files if path is not None)}: the mask is {mask_width} x {mask_height} pixels, its "
            f"image {width} x {height}: other proportions, so another image's; replace one"
        )
    return lungs


def _read_plane(path: str) -> Mask:
    grey = read_grey(path)
    if not grey.any():
        raise DataError(f"lung mask {path} marks no pixel: remove the file, or replace it")
    if 2 < grey.max() < 32:  # up to 2 all that is marked is taken, as lungs numbered 1 and 2 need it
        raise DataError(
            f"lung mask {path} has values from 0 to {grey.max()}, as a map of several organs has: give a mask that "
            "marks the lungs alone, by 1 or 255"
        )
    return 2 * grey.astype(np.int64) >= grey.max()
