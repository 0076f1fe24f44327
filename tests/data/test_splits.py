"""Splits by patient: what they depend on, and what every side of them has."""

import numpy as np
import pandas as pd
import pytest

from lightning_chex.data.splits import check_fractions, draw_validation, split_by_patient

SPLITS = ("train", "val", "test")


def test_the_validation_cut_depends_on_the_seed_and_on_nothing_else():
    rng = np.random.default_rng(0)
    patients = pd.Series(rng.integers(0, 300, 1000).astype(str))
    labels = (rng.random((1000, 8)) < 0.05).astype(np.float32)
    first = draw_validation(patients, labels, 0.2, seed=1)
    assert abs(first.mean() - 0.2) < 0.02
    shuffle = rng.permutation(1000)
    again = draw_validation(patients[shuffle], labels[shuffle], 0.2, seed=1)
    np.testing.assert_array_equal(first[shuffle], again)
    assert (first != draw_validation(patients, labels, 0.2, seed=2)).any()
    assert not set(patients[first]) & set(patients[~first])


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_class_is_on_both_sides_and_a_unique_one_in_train(seed):
    patients = pd.Series([str(i) for i in range(50)])
    labels = np.zeros((50, 3))
    labels[7, 0] = labels[8, 0] = labels[20, 1] = labels[30:, 2] = 1
    val = draw_validation(patients, labels, 0.1, seed)
    assert labels[val, 0].sum() == labels[~val, 0].sum() == 1
    assert labels[val, 1].sum() == 0
    assert 0 < labels[val, 2].sum() < 20


def test_each_split_spans_the_scores():
    scores = pd.Series(np.random.default_rng(0).integers(0, 19, 200).astype(float))
    patients = pd.Series([str(i) for i in range(200)])
    side = split_by_patient(patients, scores, 0.2, 0.2, seed=3)
    assert side.value_counts().to_dict() == {"train": 120, "val": 40, "test": 40}
    for name in SPLITS:
        assert abs(scores[side == name].mean() - scores.mean()) < 0.5
        assert scores[side == name].min() <= 1 and scores[side == name].max() >= 17
    shuffled = patients.sample(frac=1, random_state=0)
    assert split_by_patient(shuffled, scores[shuffled.index], 0.2, 0.2, seed=3).sort_index().equals(side)
    assert not split_by_patient(patients, scores, 0.2, 0.2, seed=4).equals(side)


@pytest.mark.parametrize("fractions", [(0.0,), (1.0,), (0.0, 0.2), (0.2, 0.0), (0.5, 0.5)])
def test_every_split_needs_a_share(fractions):
    with pytest.raises(ValueError, match="val_fraction"):
        check_fractions(*fractions)
    check_fractions(0.1)
    check_fractions(0.5, 0.4)
