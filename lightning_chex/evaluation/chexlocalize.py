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

from lightning_chex.explaining import read_saliency
from lightning_chex.files import write_whole
from lightning_chex.metrics import Otsu, ThresholdRule, TopFraction
from lightning_chex.reporting.frames import to_source_frame
from lightning_chex.reporting.rle import encode_mask

TASKS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Airspace Opacity", "Edema", "Consolidation",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Support Devices",
)  # fmt: skip
"""The ten pathologies that are outlined there."""

OTHER_NAMES = {"Effusion": "Pleural Effusion", "Lung Opacity": "Airspace Opacity"}
"""What other data sets call some of them."""

ExplainedMap = tuple[str, str, Callable[[], Tensor], tuple[int, int] | None]
"""Image id, class, what reads the map (H, W), height and width of the image file if known."""


def mask_rule(
    rle: bool | str, rule: Literal["otsu", "top_fraction"], fraction: float, class_names: Sequence[str]
) -> ThresholdRule:
    """Choose what makes the masks, and see that they can be made and written; the arguments are those of ``explain``.

    Raises:
        ValueError: a fraction out of range, a model without classes, or a folder instead of a file.
    """
    if rle and not class_names:
        raise ValueError("rle is for classes, but the model predicts a score: leave it out")
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

    All tasks are looked up there for every image: one of the ten that was not explained gets an empty mask, which
    stands for "not seen". Classes that are none of the ten are kept under their own names, which CheXlocalize passes
    over. ``a/b/c`` becomes ``a_b_c``, as its ids are made of CheXpert's folders.

    Args:
        maps: the maps.
        class_names: names of the model's classes.
        rule: makes the masks.

    Returns:
        Image id to task to ``size`` and ``counts``, see ``reporting/rle.py``.
    """

    def encoded(explained: ExplainedMap) -> tuple[str, str, dict[str, Any]]:
        image, target, read, size = explained
        saliency = read()
        if size is not None:
            saliency = to_source_frame(saliency, *size)
        mask = rule(saliency[None], torch.tensor([class_names.index(target)]))[0]
        mask &= bool(saliency.max() > saliency.min())  # a flat map marks no place
        return image.replace("/", "_"), OTHER_NAMES.get(target, target), encode_mask(mask.numpy())

    result: dict[str, dict[str, Any]] = {}
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
    """Write `segmentations` as JSON, whole or not at all.

    Returns:
        The number of images.
    """
    result = segmentations(maps, class_names, rule)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(result))
    return len(result)
