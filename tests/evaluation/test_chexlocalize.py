"""Masks in the form of CheXlocalize, worked out by hand."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from lightning_chex.evaluation import TASKS, segmentations, write_segmentations
from lightning_chex.metrics import Otsu, TopFraction

CLASSES = ["Edema", "Lung Opacity", "Nodule"]


@pytest.fixture
def maps():
    """A bright right half, a bright pixel, and a flat map."""
    values = {"half": np.float32([[0, 0, 5, 6], [0, 1, 5, 5]] * 2), "one": np.eye(4, dtype=np.float32) * [9, 0, 0, 0]}
    values["flat"] = np.full((4, 4), 3, np.float32)
    return {name: partial(torch.from_numpy, value.astype(np.float32)) for name, value in values.items()}


def test_masks_worked_out_by_hand(maps):
    found = segmentations(
        [
            ("p1/study1/view1_frontal", "Edema", maps["half"], None),
            ("p1/study1/view1_frontal", "Lung Opacity", maps["one"], (8, 4)),
            ("p2", "Nodule", maps["flat"], (4, 4)),
        ],
        CLASSES,
        Otsu(),
    )
    assert list(found) == ["p1_study1_view1_frontal", "p2"]
    first = found["p1_study1_view1_frontal"]
    # 8 pixels of the two left columns, then 8 marked ones
    assert first["Edema"] == {"size": [4, 4], "counts": "88"}
    assert first["Airspace Opacity"]["size"] == [8, 4] and "Lung Opacity" not in first
    assert first.keys() == set(TASKS) and found["p2"].keys() == {*TASKS, "Nodule"}
    # 16 and 32 pixels of nothing: 16 = 10000 needs a second group for its sign; 32 is 1, 0
    assert first["Support Devices"] == {"size": [4, 4], "counts": "`0"}
    assert found["p2"]["Nodule"] == {"size": [4, 4], "counts": "`0"}  # a flat map marks no place


def test_the_rule_is_the_one_asked_for_and_the_file_is_whole(maps, tmp_path):
    path = tmp_path / "new" / "masks.json"
    assert write_segmentations(path, [("a", "Edema", maps["half"], (4, 4))], CLASSES, TopFraction(0.125)) == 1
    # the two strongest pixels are 6: in the last column, the first and third row: 12, 1, 1, then 1 - 1, then 1 - 1
    assert json.loads(path.read_text())["a"]["Edema"]["counts"] == "<1100"
    assert [entry.name for entry in path.parent.iterdir()] == ["masks.json"]
