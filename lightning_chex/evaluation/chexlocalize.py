"""Segmentations in the format in which CheXlocalize (Saporta et al. 2022) compares them with radiologists' outlines."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_chex.files import write_whole
from lightning_chex.maps import read_saliency
from lightning_chex.metrics import Otsu, ThresholdRule, TopFraction
from lightning_chex.report.frames import to_source_frame
from lightning_chex.report.rle import encode_mask

TASKS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Airspace Opacity",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Support Devices",
)
"""The ten pathologies that CheXlocalize outlines."""

OTHER_NAMES = {"Effusion": "Pleural Effusion", "Lung Opacity": "Airspace Opacity"}
"""Names of other data sets -> names of CheXlocalize."""

ExplainedMap = tuple[str, str, Callable[[], Tensor], tuple[int, int] | None]
"""Image id, class, function that reads the map (H, W), height and width of the image file if known."""


def mask_rule(
    rle: bool | str, rule: Literal["otsu", "top_fraction"], fraction: float, class_names: Sequence[str]
) -> ThresholdRule:
    """Choose the threshold rule of the masks, and check that they can be written; for the arguments see ``explain``.

    Raises:
        ValueError: a fraction out of range, a model without classes, or a folder instead of a file.
    """
    if rle and not class_names:
        raise ValueError(f"rle={rle!r} needs classes, but the model predicts a score: leave rle out")
    if isinstance(rle, str) and Path(rle).expanduser().is_dir():
        raise ValueError(f"rle={rle!r} is a folder: give a file, such as {Path(rle) / 'masks.json'}")
    return Otsu() if rule == "otsu" else TopFraction(fraction)


def explained_maps(folder: Path, rows: Iterable[Mapping[str, str]]) -> Iterator[ExplainedMap]:
    """The maps in a folder of ``explain``, from the rows of its index."""
    for row in rows:
        size = (int(row["height"]), int(row["width"])) if row["height"] else None
        yield row["image"], row["target"], partial(read_saliency, folder, row), size


def segmentations(
    maps: Iterable[ExplainedMap], class_names: Sequence[str], rule: ThresholdRule
) -> dict[str, dict[str, Any]]:
    """Make masks of maps: into the frame of the image file first, then cut by the rule.

    CheXlocalize reads all ten tasks of every image: a task that was not explained gets an empty mask, which stands for
    "not seen". Other classes are kept under their own names, which CheXlocalize ignores. The image id ``a/b/c`` becomes
    ``a_b_c``, since the ids of CheXlocalize are made from the folders of CheXpert.

    Args:
        maps: the maps.
        class_names: names of the model's classes.
        rule: makes the masks.

    Returns:
        Image id -> task -> ``size`` and ``counts``, see ``report/rle.py``.
    """

    def encoded(explained: ExplainedMap) -> tuple[str, str, dict[str, Any]]:
        image, target, read, size = explained
        saliency = read()
        if size is not None:
            # before the threshold: a resized mask would have other edges
            saliency = to_source_frame(saliency, *size)
        mask = rule(saliency[None], torch.tensor([class_names.index(target)]))[0]
        mask &= bool(saliency.max() > saliency.min())  # a constant map marks nothing
        return image.replace("/", "_"), OTHER_NAMES.get(target, target), encode_mask(mask.numpy())

    result: dict[str, dict[str, Any]] = {}
    # most of the time is spent in numpy and torch, which release the interpreter
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for image, task, mask in pool.map(encoded, maps):
            result.setdefault(image, {})[task] = mask
    for tasks in result.values():
        height, width = next(iter(tasks.values()))["size"]
        empty = encode_mask(np.zeros((height, width), bool))
        for task in TASKS:
            tasks.setdefault(task, empty)
    return result


def write_segmentations(
    path: Path, maps: Iterable[ExplainedMap], class_names: Sequence[str], rule: ThresholdRule
) -> int:
    """Write `segmentations` as JSON, completely or not at all.

    Returns:
        The number of images.
    """
    result = segmentations(maps, class_names, rule)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(result))
    return len(result)
