import pytest

from lightning_chex.evaluation import EvaluationSettings


@pytest.mark.parametrize("given", [{"chunk": 0}, {"step": 0}, {"sensitivity_masks": 2}, {"blur_kernel": 4}])
def test_a_setting_outside_its_range_is_named(given):
    name, value = next(iter(given.items()))
    with pytest.raises(ValueError, match=f"{name}={value} must be"):
        EvaluationSettings(**given)


@pytest.mark.parametrize(
    ("limit", "images", "targets"), [(None, [0, 1, 2, 3], 9), (18, [0, 1], 4), (6, [0], 1), (1, [0], 1)]
)
def test_a_quick_look_takes_expensive_measures_on_few_targets_but_whole_images(limit, images, targets):
    rows = [0, 1, 1, 1, 2, 2, 3, 3, 3, 4]
    share = EvaluationSettings(perturbation_images=4).perturbed(limit)
    taken = share.take(rows)
    assert sorted(taken) == images and sum(row in taken for row in rows) == targets
    assert share.take([7]) == set()


def test_all_images_can_be_asked_for():
    share = EvaluationSettings(perturbation_images=-1).perturbed(None)
    assert [len(share.take(range(100))) for _ in range(3)] == [100, 100, 100]
    assert EvaluationSettings(randomization_images=0).randomized(None).take([0, 0]) == set()
