"""Figures of subgroups: which there are, what is logged of them by hand, and what is not."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import TinyData, TinyImages, TinyTask, tiny_trainer
from torch.utils.data import default_collate
from torchmetrics.functional.classification import binary_auroc

from lightning_chex.data.contract import subgroups_of_batch
from lightning_chex.data.subgroups import subgroups_of
from lightning_chex.explanations import SubgroupScores
from lightning_chex.explanations.places import PlaceShares
from lightning_chex.tasks import ClassificationTask, RegressionTask


def test_subgroups_of_a_table_as_it_is_written():
    images = pd.DataFrame(
        {
            "sex": ["F", "male", " f ", "", "O"],
            "age": [17.9, 18.0, 59.5, math.nan, 80.0],
            "view": ["PA", "ap", "PA", "", "LL"],
            "other": range(5),
        }
    )
    assert subgroups_of(images) == [
        {"sex": "F", "age": "0-17", "view": "PA"},
        {"sex": "M", "age": "18-39", "view": "AP"},
        {"sex": "F", "age": "40-59", "view": "PA"},
        {"sex": "", "age": "", "view": ""},
        {"sex": "O", "age": "80-", "view": "LL"},
    ]
    assert subgroups_of(images[["other"]]) is None


class Grouped(TinyImages):
    def __getitem__(self, i):
        return super().__getitem__(i) | {"patient_id": f"p{i // 2}", "subgroups": {"sex": "FM"[i >= 12], "view": ""}}


def data_of(**options) -> TinyData:
    data = TinyData(num_val=20, **options)
    data.val.__class__ = Grouped
    return data


def logged(task, data, folder, **options) -> dict[str, float]:
    trainer = tiny_trainer(folder, SubgroupScores(**options))
    trainer.validate(task, data, verbose=False)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def test_auroc_by_subgroup_is_that_of_its_images(tmp_path):
    task, data = ClassificationTask(["left", "right"], backbone="test_resnet"), data_of()
    task.model = TinyTask().model
    data.val.labels = torch.stack([torch.arange(20) % 3 == 0, torch.arange(20) // 2 % 2 == 0], 1).float()
    found = logged(task, data, tmp_path, fewest=4)
    with torch.no_grad():
        said = task.eval()(data.val.images)
    for name, own in {"F": slice(12), "M": slice(12, 20)}.items():
        labels = data.val.labels[own].long()
        expected = np.mean([float(binary_auroc(said[own][:, c], labels[:, c])) for c in (0, 1)])
        assert found[f"val/auroc_by_sex/{name}"] == pytest.approx(expected, abs=1e-6)
    assert found["val/auroc_by_sex/F_low"] < found["val/auroc_by_sex/F"] < found["val/auroc_by_sex/F_high"]
    assert not [key for key in found if "by_view" in key]  # of no image it is known


def test_a_small_subgroup_is_not_told_of(tmp_path):
    task = ClassificationTask(["left", "right"], backbone="test_resnet")
    task.model = TinyTask().model
    found = logged(task, data_of(), tmp_path, fewest=5)  # there are six patients and four
    assert {key.split("/")[2] for key in found if "by_sex" in key} <= {"F", "F_low", "F_high"}
    assert "val/auroc_by_sex/F" in found


def test_the_error_of_a_score_by_subgroup(tmp_path):
    task, data = RegressionTask((0, 20), backbone="test_resnet"), data_of(score=True)
    task.model = TinyTask(()).model
    found = logged(task, data, tmp_path, fewest=2)
    with torch.no_grad():
        error = (task.eval()(data.val.images)[:, 0] - data.val.labels).abs()
    assert found["val/mae_by_sex/F"] == pytest.approx(float(error[:12].mean()), rel=1e-5)
    assert found["val/mae_by_sex/M"] == pytest.approx(float(error[12:].mean()), rel=1e-5)
    assert found["val/mae_by_sex/M_low"] < found["val/mae_by_sex/M"] < found["val/mae_by_sex/M_high"]


def test_data_without_subgroups_and_models_that_return_nothing_are_said(tmp_path):
    task = ClassificationTask(["left", "right"], backbone="test_resnet")
    task.model = TinyTask().model
    with pytest.warns(UserWarning, match="logs nothing: the data have no sex, age or view"):
        logged(task, TinyData(), tmp_path)
    with pytest.raises(Exception, match=r"SubgroupScores needs steps of TinyTask that return the dict"):
        logged(TinyTask(), data_of(), tmp_path)
    with pytest.raises(ValueError, match="fewest is 1: give at least 2 patients"):
        SubgroupScores(fewest=1)


def test_shares_of_maps_by_subgroup_with_their_intervals():
    maps = torch.zeros(24, 20, 20)
    maps[:, 10, 10] = 1.0
    maps[:12, 0, 0] = torch.arange(12.0)  # in a corner, and at the edge
    groups = [{"sex": "F"}] * 12 + [{"sex": "M"}] * 11 + [{"sex": ""}]
    shares = PlaceShares(1, torch.device("cpu"))
    for own in (slice(0, 7), slice(7, 24)):
        people = [f"p{i}" for i in range(24)][own]
        shares.update(maps[own], torch.zeros(len(people), dtype=torch.long), None, groups[own], people)
    found = {key: float(value) for key, value in shares.scores([]).items()}
    expected = np.mean([i / (i + 1) for i in range(12)])
    assert found["corners_by_sex/F"] == pytest.approx(expected) and found["edge_by_sex/M"] == 0
    assert 0 <= found["corners_by_sex/F_low"] < expected < found["corners_by_sex/F_high"] <= 1
    few = PlaceShares(1, torch.device("cpu"))
    few.update(maps[:9], torch.zeros(9, dtype=torch.long), None, groups[:9], [f"p{i}" for i in range(9)])
    assert not [key for key in few.scores([]) if "_by_" in key]  # nine patients are too few


def test_groups_of_a_batch_however_it_was_joined():
    samples = [{"subgroups": {"sex": "F", "age": "0-17"}}, {"subgroups": {"sex": "M", "age": ""}}]
    expected = [own["subgroups"] for own in samples]
    assert subgroups_of_batch({"subgroups": expected}) == expected
    assert subgroups_of_batch(default_collate(samples)) == expected
    assert subgroups_of_batch({}) is None
