"""AUROC with its interval: against loops over pairs, torchmetrics, and how often the interval holds the truth."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from lightning_chex.metrics import auroc_estimate


def by_pairs(scores, labels):
    """AUROC and what each image adds, by every pair of a positive and a negative (DeLong et al. 1988)."""
    wins = {
        (i, j): 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
        for i in range(len(scores))
        for j in range(len(scores))
        if labels[i] == 1 and labels[j] == 0
    }
    ones, zeros = {i for i, _ in wins}, {j for _, j in wins}
    area = sum(wins.values()) / len(wins)
    moved = {i: (sum(wins[i, j] for j in zeros) / len(zeros) - area) / len(ones) for i in ones}
    moved |= {j: (sum(wins[i, j] for i in ones) / len(ones) - area) / len(zeros) for j in zeros}
    return area, moved


def test_value_and_standard_error_are_those_of_all_pairs_summed_by_patient():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 2)).astype(float)
    labels[::7, 1] = np.nan
    scores = np.round(rng.normal(size=(60, 2)) + np.nan_to_num(labels), 1)  # with ties
    patients = [f"p{i // 3}" for i in range(60)]
    areas, moved = zip(*(by_pairs(scores[:, c], labels[:, c]) for c in (0, 1)), strict=True)
    value = sum(areas) / 2
    people = {p: 0.0 for p in patients}
    for own in moved:
        for i, step in own.items():
            people[patients[i]] += step / 2
    error = math.sqrt(sum(own**2 for own in people.values()) * 20 / 19)
    reach = 1.96 * error / (value * (1 - value))
    found = auroc_estimate(scores, labels, patients)
    assert found.value == pytest.approx(value, abs=1e-12) and (found.n, found.patients) == (60, 20)
    for end, sign in ((found.ci_low, -1), (found.ci_high, 1)):
        assert end == pytest.approx(1 / (1 + math.exp(-math.log(value / (1 - value)) - sign * reach)), abs=1e-4)
    one = [float(binary_auroc(torch.tensor(scores[k, c]), torch.tensor(labels[k, c]).long()))
           for c in (0, 1) for k in [~np.isnan(labels[:, c])]]  # fmt: skip
    assert found.value == pytest.approx(sum(one) / 2, abs=1e-6)


def test_images_of_one_patient_are_no_independent_evidence():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (40, 1)).astype(float)
    scores = rng.normal(size=(40, 1)) + labels
    alone = auroc_estimate(scores, labels, range(40))
    thrice = auroc_estimate(np.repeat(scores, 3, 0), np.repeat(labels, 3, 0), np.repeat(range(40), 3).tolist())
    assert (thrice.value, thrice.ci_low, thrice.ci_high) == pytest.approx((alone.value, alone.ci_low, alone.ci_high))
    assert thrice.n == 120 and thrice.patients == 40


def test_the_interval_holds_the_truth_in_95_percent_of_samples():
    truth = NormalDist().cdf(1 / math.sqrt(2))  # of scores with unit variance, one apart
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        labels = np.repeat(rng.integers(0, 2, 30), 2).astype(float)[:, None]
        own = np.repeat(rng.normal(size=30), 2)[:, None] * math.sqrt(0.5)  # of the patient
        found = auroc_estimate(
            labels + own + rng.normal(size=(60, 1)) * math.sqrt(0.5), labels, np.repeat(range(30), 2).tolist()
        )
        held += found.ci_low <= truth <= found.ci_high
    assert 0.92 <= held / 400 <= 0.98


def test_what_cannot_be_scored_is_nan_and_has_no_interval():
    assert not auroc_estimate([[1.0], [2.0]], [[1], [1]], ["a", "b"]).known
    perfect = auroc_estimate([[1.0], [2.0]], [[0], [1]], ["a", "b"])
    assert perfect.value == 1 and not perfect.has_interval
    one = auroc_estimate([[1.0], [2.0], [1.5], [3.0]], [[0], [1], [1], [0]], ["a"] * 4)
    assert one.value == 0.5 and not one.has_interval
    with pytest.raises(ValueError, match=r"scores \(2, 1\), labels \(1, 1\) and patients \(2,\) differ"):
        auroc_estimate([[1.0], [2.0]], [[1]], ["a", "b"])
