"""Docstrings begin as a reference does: with a verb in the imperative or the noun they define."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightning_chex

ROOT = Path(lightning_chex.__file__).parent
OPENINGS = {"What", "How", "Which", "Whose", "Where", "Who", "When"}


def openings(source: str) -> Iterator[tuple[int, str]]:
    """Line and first word of each docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "lineno", 1), docstring.split()[0]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_docstring_begins_with_a_question_word(path):
    found = [f"line {line}: {word}" for line, word in openings(path.read_text()) if word in OPENINGS]
    assert not found, "begin with a verb in the imperative, or with the noun that is defined"


def test_a_question_word_would_be_found():
    assert list(openings('"""What it is."""\ndef f():\n    """Return it."""\n')) == [(1, "What"), (2, "Return")]
