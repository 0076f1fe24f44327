import pytest
import yaml
from commands import CONFIGS

from lightning_chex.yaml_text import load_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGED = "m0: &m0 {a: 1, b: 2}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, r"holds [\d,]{12,} values, aliases .* resolved"),  # 9 ** 12 of them
        (MERGED, "aliases"),
        ("a: &a [*a]", "contains itself"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_a_text_that_says_too_much_is_refused(text, words):
    with pytest.raises(yaml.YAMLError, match=words):
        load_yaml(text)


def test_a_few_aliases_are_fine():
    assert load_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]")["b"] == {"x": 1, "y": 2}
    assert load_yaml("") is None


def test_configurations_are_far_below_the_limit():
    assert all(isinstance(load_yaml(path.read_text()), dict) for path in CONFIGS.rglob("*.yaml"))
