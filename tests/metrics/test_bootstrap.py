import math

import numpy as np
import pytest
import torch

from lightning_chex.metrics import ClassMean, summarize


def test_means_and_counts_by_hand():
    summary = summarize(
        [1.0, 3, 5, math.nan, 8], ["a", "a", "b", "c", "d"], [0, 0, 0, 1, 2], num_classes=4, resamples=50
    )
    assert (summary.mean.value, summary.mean.n, summary.mean.patients) == (17 / 4, 4, 3)
    assert summary.class_mean.value == pytest.approx((3 + 8) / 2)
    assert [one.value for one in summary.per_class[::2]] == [3, 8]
    assert [one.n for one in summary.per_class] == [3, 0, 1, 0]
    assert [one.patients for one in summary.per_class] == [2, 0, 1, 0]
    assert math.isnan(summary.per_class[1].value)
    assert math.isnan(summary.per_class[2].ci_low)  # one patient tells nothing of others


def test_intervals_agree_with_redrawing_patients_in_a_loop():
    generator = np.random.default_rng(0)
    patients = generator.integers(0, 30, 100)
    effect = generator.normal(size=30)
    values = effect[patients] + 0.3 * generator.normal(size=100)
    classes = generator.integers(0, 3, 100)
    summary = summarize(values, patients.tolist(), classes, 3, resamples=4000)
    people = sorted(set(patients.tolist()))
    redrawn = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(patients == p) for p in generator.choice(people, len(people))])
        means = [values[rows][classes[rows] == k].mean() for k in range(3)]
        redrawn.append([values[rows].mean(), np.mean(means), *means])
    low, high = np.quantile(redrawn, [0.025, 0.975], axis=0)
    estimates = [summary.mean, summary.class_mean, *summary.per_class]
    width = high - low
    np.testing.assert_allclose([one.ci_low for one in estimates], low, atol=0.05 * width.max())
    np.testing.assert_allclose([one.ci_high for one in estimates], high, atol=0.05 * width.max())


def test_many_images_of_one_patient_are_no_more_evidence():
    generator = np.random.default_rng(1)
    effect = generator.normal(size=20)
    once = summarize(effect, list(range(20))).mean
    often = summarize(np.repeat(effect, 50), np.repeat(np.arange(20), 50).tolist()).mean
    assert (often.ci_low, often.ci_high) == pytest.approx((once.ci_low, once.ci_high)) and often.n == 1000
    as_images = summarize(np.repeat(effect, 50), list(range(1000))).mean
    assert as_images.ci_high - as_images.ci_low < 0.3 * (once.ci_high - once.ci_low)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        one = summarize(generator.normal(size=60), list(range(60)), resamples=300, seed=3).mean
        held += one.ci_low <= 0 <= one.ci_high
    assert 0.88 <= held / 200 <= 0.99


def test_the_seed_decides_and_confidence_widens():
    values, patients = np.arange(30.0), list(range(30))
    assert summarize(values, patients) == summarize(values, patients)
    assert summarize(values, patients) != summarize(values, patients, seed=1)
    wide, narrow = summarize(values, patients, confidence=0.99).mean, summarize(values, patients, confidence=0.5).mean
    assert wide.ci_low < narrow.ci_low < narrow.value < narrow.ci_high < wide.ci_high


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_counted_gives_nan(values):
    summary = summarize(values, ["a", "b"][: len(values)])
    assert math.isnan(summary.mean.value) and math.isnan(summary.mean.ci_low) and summary.mean.n == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2], ["a"]), r"patients \(1,\)"),
        (([1.0], ["a"], [3], 3), r"outside 0\.\.2"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        summarize(*arguments)


@pytest.mark.parametrize("settings", [{"resamples": 0}, {"confidence": 1.0}])
def test_settings_outside_their_range_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        summarize([1.0], ["a"], **settings)


def test_the_accumulator_gives_the_same_means_and_merges_exactly():
    generator = torch.Generator().manual_seed(0)
    values, classes = torch.rand(40, generator=generator), torch.randint(3, (40,), generator=generator)
    values[::7] = torch.nan
    whole, first, second = (ClassMean(4) for _ in range(3))
    whole.update(values, classes)
    first.update(values[:11], classes[:11])
    second.update(values[11:], classes[11:])
    first.merge_state(second)
    expected = summarize(values, list(range(40)), classes, 4, resamples=1)
    for result in (whole.compute(), first.compute()):
        assert result["mean"].item() == pytest.approx(expected.mean.value)
        assert result["class_mean"].item() == pytest.approx(expected.class_mean.value)
        assert result["count"].tolist() == [one.n for one in expected.per_class]
        assert result["per_class"][:3].tolist() == pytest.approx([one.value for one in expected.per_class[:3]])
        assert result["per_class"][3].isnan()
    with pytest.raises(ValueError, match="num_classes=0"):
        ClassMean(0)
