"""The benchmark of recipes: its figures are scikit-learn's, and its words are those of its intervals."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.recipes.page import Row, line, markdown
from benchmarks.recipes.scores import MEASURES, scores
from lightning_chex.class_names import PATHOLOGIES

REFERENCES = (roc_auc_score, average_precision_score)


def drawn(seed: int, images: int = 90):
    """Predictions with ties, labels, and patients with several images each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (images, len(PATHOLOGIES)))
    predictions = [(rng.integers(0, 9, labels.shape) + 3 * labels) / 12 for _ in range(2)]
    return predictions, labels, [f"p{i // 3:02d}" for i in range(images)]


@pytest.mark.parametrize("measure", range(len(MEASURES)))
def test_values_are_scikit_learns_and_draws_are_of_whole_patients(measure):
    predictions, labels, patients = drawn(0)
    found = scores(predictions, labels, patients, draws=5)
    reference = REFERENCES[measure]
    expected = [
        [reference(labels[:, k], own[:, k]) for k in range(labels.shape[1])] for own in predictions
    ]  # of each seed and class
    np.testing.assert_allclose(found.values[measure], np.mean(expected, axis=0))
    np.testing.assert_allclose(found.by_seed[:, measure], np.mean(expected, axis=1))
    people = np.array([int(name[1:]) for name in patients])
    weights = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=5)
    for r in range(5):
        rows = np.concatenate([np.flatnonzero(people == person).repeat(weights[r, person]) for person in range(30)])
        expected_r = [np.mean([reference(labels[rows, k], own[rows, k]) for own in predictions]) for k in range(8)]
        np.testing.assert_allclose(found.drawn[r, measure], expected_r)


def test_a_class_that_is_not_drawn_is_left_out_of_the_interval():
    predictions, labels, patients = drawn(1, 12)
    labels[:, 0] = 0
    labels[0, 0] = 1  # of one patient of four
    found = scores(predictions, labels, patients, draws=50)
    assert np.isnan(found.drawn[:, :, 0]).any() and np.isfinite(found.interval(0)).all()


def test_a_recipe_is_called_better_only_with_an_interval_clear_of_zero():
    predictions, labels, patients = drawn(2)
    chance = [np.random.default_rng(3).random(labels.shape)]
    weak, strong, same = (scores(own, labels, patients, draws=200) for own in (chance, predictions, chance))
    rows = [Row(name, own, "told", 60.0) for name, own in (("A", weak), ("B", strong), ("C", same))]
    told = {"command": "x", "commit": "y", "machine": "z", "data": "d"}
    text = markdown(rows, [], labels, told)
    assert "**B** is better than it" in text and "**C** is not distinguishable from it (+0.000" in text
    assert f"| {PATHOLOGIES[0]} | {labels[:, 0].sum()} |" in text and "2 seeds, " in text
    assert line(rows[0]).startswith("A: AUROC 0.")
