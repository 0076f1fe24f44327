"""Findings of several readers of one image, merged by a named rule: any, majority or all."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import pandas as pd

ReaderRule = Literal["any", "majority", "all"]
"""How many of the readers of an image have to see a finding: one of them, more than half, or all."""

SAME = 0.5
"""Least IoU of two readers' boxes that mark one finding."""

_CORNERS = ["x1", "y1", "x2", "y2"]


def check_rule(readers: str) -> None:
    """Raise a ValueError for a rule that is none."""
    if readers not in get_args(ReaderRule):
        raise ValueError(f"readers is {readers!r}: give {', '.join(get_args(ReaderRule))}")


def needed(readers: np.ndarray, rule: ReaderRule) -> np.ndarray:
    """Return how many of so many readers have to agree, by a rule.

    Example:
        >>> [needed(np.array([1, 2, 3, 4]), rule).tolist() for rule in ("any", "majority", "all")]
        [[1, 1, 1, 1], [1, 2, 2, 3], [1, 2, 3, 4]]
    """
    return {"any": np.ones_like(readers), "majority": readers // 2 + 1, "all": readers}[rule]


def merge_labels(labels: np.ndarray, images: pd.Series, readers: pd.Series, rule: ReaderRule) -> pd.DataFrame:
    """Join what the readers of an image say of it.

    A reader who has several rows of an image, one a box, sees what one of them names. A class that some readers leave
    open is decided by the others.

    Args:
        labels: (N, K) in {0, 1} or NaN (not known), a row of each reader's.
        images: the image of each row.
        readers: the reader of each row, on the same index.
        rule: see `ReaderRule`.

    Returns:
        (M, K), 0, 1 or NaN, a row an image, whose name is the index.
    """
    own = pd.DataFrame(labels).groupby([images.to_numpy(), readers.to_numpy()], sort=False).max()
    by_image = own.groupby(level=0, sort=False)
    votes = by_image.sum()
    told = by_image.count()
    agreed = (votes.to_numpy() >= needed(told.to_numpy(), rule)).astype(np.float32)
    return pd.DataFrame(np.where(told.to_numpy() > 0, agreed, np.nan), index=votes.index, columns=votes.columns)


def merge_boxes(boxes: pd.DataFrame, counts: Mapping[str, int], rule: ReaderRule, same: float = SAME) -> pd.DataFrame:
    """Join the boxes that the readers of an image draw around one finding.

    Boxes of one image and class form groups, each with at most one box of a reader. Beginning with each box alone, the
    two groups whose boxes overlap best, measured by the least IoU between a box of the one and a box of the other, are
    joined, as long as that IoU is at least ``same``. A group is kept if so many readers drew it as the rule asks for,
    among all who read the image, whether they drew something or not. Its box has the mean of their corners.

    Args:
        boxes: columns ``image_id``, ``label``, ``reader``, ``x1``, ``y1``, ``x2``, ``y2`` and others, which are taken
            from the first box of a group.
        counts: number of readers of each image.
        rule: see `ReaderRule`.
        same: least IoU of boxes that mark one finding.

    Returns:
        The same columns but ``reader``, a row a group that is kept, in the order of the images.
    """
    joined = []
    ordered = boxes.sort_values(_CORNERS, kind="stable")  # so that the order of the rows means nothing
    for (image, _), own in ordered.groupby(["image_id", "label"], sort=False):
        corners = own[_CORNERS].to_numpy(np.float64)
        for group in _groups(corners, own["reader"].tolist(), same):
            if len(group) >= needed(np.array(counts[str(image)]), rule):
                row = own.iloc[min(group)].to_dict()
                joined.append(row | dict(zip(_CORNERS, corners[group].mean(axis=0), strict=True)))
    columns = [name for name in boxes.columns if name != "reader"]
    merged = pd.DataFrame(joined, columns=columns).astype({"label": np.int64})
    first = {name: place for place, name in enumerate(boxes["image_id"].unique())}
    return merged.sort_values("image_id", key=lambda names: names.map(first), kind="stable", ignore_index=True)


def _groups(corners: np.ndarray, readers: list[str], same: float) -> list[list[int]]:
    """Indices of the boxes that mark one finding, see ``merge_boxes``."""
    low = np.maximum(corners[:, None, :2], corners[None, :, :2])
    high = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    overlaps = shared / (areas[:, None] + areas[None, :] - shared)
    groups = [[k] for k in range(len(corners))]
    while len(groups) > 1:
        fits = [
            (overlaps[np.ix_(one, other)].min(), -i, -j)
            for i, one in enumerate(groups)
            for j, other in enumerate(groups[i + 1 :], i + 1)
            if not {readers[k] for k in one} & {readers[k] for k in other}
        ]
        best, i, j = max(fits, default=(-1.0, 0, 0))
        if best < same:
            break
        groups[-i] += groups.pop(-j)
    return groups
