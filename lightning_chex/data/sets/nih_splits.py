"""The splits of NIH ChestX-ray8, by patient, as pure functions of its tables.

The publisher's test list fixes the test images; validation images are drawn from the other list. All expert boxes lie
on test images. To tune on some of them without touching the test split, the patients with boxes fall into two halves
(``in_tuning_half``): the images of the *tuning half* are explained at validation and left out of the test split; those
of the *reporting half* stay in it. A test figure rests on somewhat fewer images than the publisher's list has.

The "sample" of 5,606 images comes without lists. With the publisher's lists beside it, its images keep their official
splits. Without them a fifth of its patients, and all with boxes, are the test split (``sample_lists``); figures on that
do not compare with those on the official list.
"""

import hashlib

import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few


def in_tuning_half(patient_id: str) -> bool:
    """Whether the first byte of the SHA-256 of a patient number, written without leading zeros, is even."""
    return hashlib.sha256(patient_id.encode()).digest()[0] % 2 == 0


def sample_lists(labels: pd.DataFrame, boxes: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Make the lists that the "sample" of the data set lacks.

    Test patients are those with boxes, and those whose number, without leading zeros, has a SHA-256 that is a multiple
    of five.

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
    labels: pd.DataFrame, train_val: pd.Series, test: pd.Series, boxes: pd.DataFrame, allow_missing: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Assign each listed image its split.

    Args:
        labels: from ``read_labels``.
        train_val: image ids of ``train_val_list.txt``.
        test: image ids of ``test_list.txt``.
        boxes: from ``read_boxes``.
        allow_missing: leave out names without a row in the table with a warning, instead of raising.

    Returns:
        ``labels`` with a column ``split``: ``train_val``, ``test``, or ``tuning`` for all test images of the tuning
        half; and ``boxes``. Images of neither list are left out, with a warning, and so are their boxes.

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
        if not len(unknown):
            continue
        message = f"{len(unknown)} images of {where} have no row in the label table: {first_few(unknown)}"
        if not allow_missing or (names is listed.index and len(unknown) == len(names)):
            raise DataError(
                f"{message}; all files must be of one version of the data set, or set allow_missing: true for a table "
                "of some of its rows"
            )
        rank_zero_warn(f"{message}; they are left out, because allow_missing is true")
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
            "patients overlap between train and test, so test metrics would be invalid"
        )
