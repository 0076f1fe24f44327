"""YAML from outside: plain values only, and no more of them than its text is long."""

from typing import Any

import yaml

MOST_VALUES = 10_000
"""A configuration of this package holds some hundred."""


def load_yaml(text: str) -> Any:
    """Load plain values.

    Raises:
        yaml.YAMLError: it is no YAML, asks for other objects, or see `check_size`.
    """
    check_size(text)
    return yaml.safe_load(text)


def check_size(text: str) -> None:
    """Refuse a text that by aliases, each standing for many others, says far more than it seems to.

    Ten lines can stand for billions of values, and a walk through them would not end.

    Raises:
        yaml.YAMLError: it is no YAML, holds more than `MOST_VALUES`, contains itself, or is nested too deeply.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = 0 if root is None else _size(root, {}, set())
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply: write it with fewer levels") from error
    if values > MOST_VALUES:
        raise yaml.YAMLError(
            f"it holds {values:,} values, aliases (*name) resolved: write it without them, and shorter"
        )


def _size(node: yaml.Node, known: dict[int, int], within: set[int]) -> int:
    """Number of values below and with a node; what is known is not counted again."""
    if id(node) in within:
        raise yaml.YAMLError("an alias in it contains itself: write it without")
    if id(node) not in known:
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        within.add(id(node))
        parts = () if isinstance(node, yaml.ScalarNode) else inner
        known[id(node)] = 1 + sum(_size(part, known, within) for part in parts)
        within.remove(id(node))
    return known[id(node)]
