"""Who goes into which split of NIH ChestX-ray8: pure functions of its tables, no file is opened here.

The publisher's test list fixes the test images. Two cuts are ours, both by patient:

- Validation images are drawn from the train_val list with a seed (``draw_validation``).
- All expert boxes lie on test images. Whoever chose settings by looking at the maps on them would tune on the test
  set, so patients with boxes fall into two halves (``in_tuning_half``), the same ones for everybody. The *tuning
  half* is explained at validation, and none of its patients' images is in the test split, boxed or not. The
  *reporting half* stays in the test split and is looked at only there. A test figure therefore stands on somewhat
  fewer images than the publisher's list has.

The "sample" of 5,606 images comes without lists. Put the publisher's two lists beside it, and its images keep their
official sides. Without them a fifth of its patients, and all with boxes, serve as test images (``sample_lists``): such
a test is honest, but no figure of it compares with one on the official list.
"""

import hashlib

import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.files.images import first_few


def in_tuning_half(patient_id: str) -> bool:
    """Say which half of the box patients someone belongs to, by a rule that needs no other patient.

    True if the first byte of the SHA-256 of the patient number, written without leading zeros, is even.
    """
    return hashlib.sha256(patient_id.encode()).digest()[0] % 2 == 0


def sample_lists(labels: pd.DataFrame, boxes: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Make the lists that the "sample" of the data set comes without.

    A patient is tested on if the SHA-256 of the patient number, written without leading zeros and read as a whole
    number, is a multiple of five, a rule that needs no other patient; or if there are boxes on an image of theirs.

    Args:
        labels: from ``read_labels``.
        boxes: from ``read_boxes``.

    Returns:
        Image ids for ``train_val`` and for ``test``.
    """
    boxed = labels["patient_id"][labels["image_id"].isin(boxes["image_id"])]
    drawn = labels["patient_id"].map(lambda patient: int(hashlib.sha256(patient.encode()).hexdigest(), 16) % 5 == 0)
    test = drawn | labels["patient_id"].isin(boxed)
    return labels["image_id"][~test], labels["image_id"][test]


def official_split(
    labels: pd.DataFrame, train_val: pd.Series, test: pd.Series, boxes: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give each listed image its split.

    Args:
        labels: from ``read_labels``.
        train_val: image ids of ``train_val_list.txt``.
        test: image ids of ``test_list.txt``.
        boxes: from ``read_boxes``.

    Returns:
        ``labels`` with a column ``split``: ``train_val``, ``test``, or ``tuning`` for every test image of a patient in
        the tuning half of those with boxes. Images of neither list are left out, with a warning; and so are their
        boxes, from the second value, ``boxes``.

    Raises:
        DataError: an image or a patient in both lists, a name without a row in the table, a box on a training image.
    """
    both = set(train_val) & set(test)
    if both:
        raise DataError(
            f"{len(both)} images are in train_val_list.txt and test_list.txt: {first_few(sorted(both))}; "
            "get the publisher's lists anew"
        )
    listed = pd.concat([pd.Series("train_val", index=train_val), pd.Series("test", index=test)])
    for names, where in [(listed.index, "train_val_list.txt and test_list.txt"), (boxes["image_id"], "the box list")]:
        unknown = pd.Index(names).difference(labels["image_id"])
        if len(unknown):
            raise DataError(
                f"{len(unknown)} images of {where} have no row in the label table: {first_few(unknown)}; "
                "all files must be of one version of the data set"
            )
    split = labels["image_id"].map(listed)
    unlisted = labels["image_id"][split.isna()]
    if len(unlisted):
        rank_zero_warn(f"{len(unlisted)} images of the label table are in no list and left out: {first_few(unlisted)}")
    images = labels.assign(split=split)[split.notna()]
    _refuse_shared_patients(images)

    boxes = boxes[boxes["image_id"].isin(images["image_id"])]
    boxed = images[images["image_id"].isin(boxes["image_id"])]
    training = boxed["image_id"][boxed["split"] == "train_val"]
    if len(training):
        raise DataError(
            f"{len(training)} images with expert boxes are in train_val_list.txt: {first_few(training)}; "
            "boxes belong to test images, nobody may train on them"
        )
    tuning = [patient for patient in boxed["patient_id"].unique() if in_tuning_half(patient)]
    return images.assign(split=images["split"].mask(images["patient_id"].isin(tuning), "tuning")), boxes


def _refuse_shared_patients(images: pd.DataFrame) -> None:
    sides = images.groupby("patient_id")["split"].nunique()
    shared = sides.index[sides > 1]
    if len(shared):
        raise DataError(
            f"{len(shared)} patients are in train_val_list.txt and in test_list.txt: {first_few(shared)}; "
            "with one patient on two sides no test figure would be true"
        )
