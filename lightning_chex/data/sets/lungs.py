"""X-rays with outlined lungs: pairs of image and mask files, as Montgomery, Shenzhen, JSRT and others publish them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.datamodule import ChestXrayDataModule, Split
from lightning_chex.data.images.images import (
    ImageReader,
    check_images,
    find_images,
    first_few,
    read_grey,
    resolve_inside,
)
from lightning_chex.data.images.lung_files import MaskFiles, check_lungs, find_masks, lungs_of_image
from lightning_chex.data.sets.image_files import ImageFiles
from lightning_chex.data.splits import check_fractions, split_by_patient
from lightning_chex.data.table.files import contents, data_root, read_patients
from lightning_chex.data.transforms import ImageTransform

LUNGS = ("right_lung", "left_lung")
"""The patient's right lung lies at the image's left."""

LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "montgomery": ("CXR_png", ("ManualMask/rightMask/{id}.png", "ManualMask/leftMask/{id}.png")),
    "shenzhen": ("CXR_png", ("mask/{id}_mask.png",)),
    "jsrt": ("images", ("masks/right lung/{id}.gif", "masks/left lung/{id}.gif")),
    "cohen": ("data/public-cohen-subset", ("lung_masks/{id}.png",)),
    "lesions": ("images", ("masks/{id}_rlung.png", "masks/{id}_llung.png")),
}
"""By name: the folder of the images, and the masks, as ``LungDataModule`` takes them.

Montgomery and Shenzhen are the tuberculosis sets of the NLM (Shenzhen's masks: Stirenko et al.),
JSRT has the masks of the SCR database beside its images, converted to PNG. ``cohen`` is the data set of
``CohenDataModule``, ``lesions`` the COVID-19 images with a mask file for each lung and lesion.
"""


class LungSegmentation(ImageFiles):
    """X-rays with the outlines of their lungs.

    Args:
        images: columns ``image_id``, ``patient_id``, ``path``, ``masks`` (see ``MaskFiles``), and ``right_lung`` and
            ``left_lung``: whether it is outlined. A row per image.
        transform: what an image goes through.
        read: reads an image file.
    """

    def __init__(self, images: pd.DataFrame, transform: ImageTransform, read: ImageReader = read_grey) -> None:
        super().__init__(images, transform, read)
        self.labels = torch.from_numpy(images[list(LUNGS)].to_numpy(dtype="float32", copy=True))
        self.masks: list[MaskFiles] = images["masks"].tolist()

    def annotations(self, index: int, height: int, width: int) -> dict[str, Any]:
        """Return the lung masks of one image; ``label`` says which lungs are outlined."""
        return {"masks": {"lung_mask": lungs_of_image(self.masks[index], (height, width))}}


class LungDataModule(ChestXrayDataModule):
    """Serve X-rays with lung masks from a folder of images and one or two folders of masks.

    No patient is in two splits. The patients are read from ``sources.csv`` (columns ``filename``, ``patientid``) in
    ``root``; an image without an entry counts as a patient of its own. The split is drawn from the images on disk, so
    it is another one for a partial copy. A mask may have another resolution than its image, not other proportions. A
    lung without outline has an empty plane in ``lung_mask`` and a 0 in ``label``: not outlined, not absent.

    Args:
        root: the folder that holds the data set.
        layout: name of one of ``LAYOUTS``, for ``images`` and ``masks``.
        images: folder of the images below ``root`` (PNG or JPEG), instead of the layout's. Masks in it are ignored.
        masks: folder and file name of the masks below ``root``, instead of the layout's, with ``{id}`` in the name for
            the image's file name without suffix. Two of them are for the patient's right lung (image left) and the left
            one; one is for masks of both, which ``split_lungs`` separates.
        val_fraction: share of the patients in the validation split.
        test_fraction: share of the patients in the test split.
        split_seed: seed of the split.
        allow_missing: warn and leave out images without a mask and masks without an image, instead of raising; an image
            with one of two masks stays, with one lung.
        kwargs: see ``ChestXrayDataModule``.

    Raises:
        ValueError: an unknown layout, masks that are not named as above, or an impossible fraction.
    """

    class_names = LUNGS

    def __init__(
        self,
        root: str | None = None,
        layout: str | None = None,
        images: str | None = None,
        masks: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.shuffle_labels:
            raise ValueError("shuffle_labels is not supported for segmentation: leave it out")
        if layout is not None and layout not in LAYOUTS:
            raise ValueError(f"layout is {layout!r}: give one of {', '.join(LAYOUTS)}, or images and masks instead")
        if layout is None and (images is None or masks is None):
            raise ValueError(f"give layout ({', '.join(LAYOUTS)}), or both images and masks")
        preset_images, preset_masks = LAYOUTS[layout] if layout is not None else ("", ())
        self.images = preset_images if images is None else images
        self.masks = preset_masks if masks is None else tuple(masks)
        _check_patterns(self.masks)
        check_fractions(val_fraction, test_fraction)
        self.root = root
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.allow_missing = allow_missing
        self._images = pd.DataFrame()

    def check(self) -> None:
        """Pair images and masks, and check that they match (reads every mask once); raises a DataError otherwise."""
        root = data_root(self.root)
        resolve_inside(root, self.images, self.follow_links)
        folder = root / self.images
        if not folder.is_dir():
            raise DataError(f"no folder {self.images} with images in {root}, which holds {contents(root)}")
        found = [find_masks(root, pattern, self.follow_links) for pattern in self.masks]
        masks = {path for files in found for path in files.values()}
        found_images = find_images(root, [folder], self.follow_links)
        paths = {name: path for name, path in found_images.items() if path not in masks}
        if not paths:
            raise DataError(f"no image in {folder}, which holds {contents(folder)}: correct root or images")
        ids = sorted(paths.keys() & set().union(*found))
        self._report_missing(paths, found)
        if not ids:
            raise DataError(f"none of the {len(paths)} images in {folder} has a lung mask: correct root or masks")
        images = pd.DataFrame({"image_id": ids})
        images["path"] = images["image_id"].map(paths)
        images["masks"] = [tuple(files.get(name) for files in found) for name in ids]
        check_images([*images["path"], *(file for files in images["masks"] for file in files if file is not None)])
        images[list(LUNGS)] = check_lungs(images["path"].tolist(), images["masks"].tolist())
        images["patient_id"] = read_patients(images["image_id"], root / "sources.csv")
        # without scores the draw alone decides
        images["split"] = split_by_patient(
            images["patient_id"], pd.Series(0.0, images.index), self.val_fraction, self.test_fraction, self.split_seed
        )
        self._images = images

    def build(self, split: Split, transform: ImageTransform) -> LungSegmentation:
        """Make the dataset of one split."""
        return LungSegmentation(self._images[self._images["split"] == split], transform, self.read)

    def _report_missing(self, paths: dict[str, str], found: Sequence[dict[str, str]]) -> None:
        """Raise for images and masks without a counterpart, or warn that they are left out."""
        of_any = set().union(*found)
        of_all = set(found[0]).intersection(*found)
        cases = [
            (sorted(paths.keys() - of_any), f"of the {len(paths)} images have no lung mask", "left out"),
            (sorted(of_any - paths.keys()), "lung masks have no image", "left out"),
            (sorted(paths.keys() & of_any - of_all), "images have a mask of one lung only", "kept with one lung"),
        ]
        messages = [f"{len(names)} {what} ({first_few(names)})" for names, what, _ in cases if names]
        if not messages:
            return
        message = "; ".join(messages)
        if not self.allow_missing:
            raise DataError(f"{message}: get or remove the files, or set allow_missing: true to do without them")
        fates = "; ".join(f"{len(names)} {fate}" for names, _, fate in cases if names)
        rank_zero_warn(f"{message}: {fates}, because allow_missing is true")


def _check_patterns(masks: Sequence[str]) -> None:
    if len(masks) not in (1, 2):
        raise ValueError(f"masks names {len(masks)} kinds of masks: give one for both lungs, or right and left")
    for pattern in masks:
        folder, _, name = pattern.rpartition("/")
        if name.count("{id}") != 1 or "{id}" in folder:
            raise ValueError(f"masks names {pattern!r}: give folder/name.png with {{id}} once, in the name")
    if len(set(masks)) != len(masks):
        raise ValueError(f"masks names {masks[0]!r} twice: give it once if it holds both lungs")
