import pytest

from lightning_chex.evaluation import EvaluationSettings


@pytest.mark.parametrize("given", [{"chunk": 0}, {"step": 0}, {"sensitivity_masks": 2}, {"blur_kernel": 4}])
def test_a_setting_outside_its_range_is_named(given):
    name, value = next(iter(given.items()))
    with pytest.raises(ValueError, match=f"{name}={value} must be"):
        EvaluationSettings(**given)
