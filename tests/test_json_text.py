"""JSON from outside: bounded, of one type, and one error that says what is wrong."""

import ast
import os
from pathlib import Path

import pytest
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import lightning_chex
from lightning_chex import json_text
from lightning_chex.evaluation.fitting import _read_layers
from lightning_chex.json_text import load_json, parse_json
from lightning_chex.runs import read_record

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_refused_without_recursion(opening):
    closing = {"[": "]", '{"a":': "}"}[opening]
    with pytest.raises(ValueError, match="nested 100000 levels deep, more than the 64 that are read"):
        parse_json(opening * 100_000 + "1" + closing * 100_000)
    with pytest.raises(ValueError, match="nested 100000 levels deep"):
        parse_json(opening * 100_000)


def test_brackets_within_texts_are_no_nesting():
    text = "[" * 500
    assert parse_json(f'{{"a": "{text}", "b": "\\\\", "c": [1]}}')["a"] == text
    assert parse_json('{"a": "\\"[[[[[["}') == {"a": '"[[[[[['}


def test_64_levels_are_read():
    value = parse_json('{"a":' * 64 + "1" + "}" * 64)
    for _ in range(64):
        value = value["a"]
    assert value == 1


@pytest.mark.parametrize(
    ("text", "kind"), [("[1]", "list"), ("1", "number"), ("true", "truth value"), ("null", "null"), ('"a"', "text")]
)
def test_other_values_than_objects_are_named(text, kind):
    with pytest.raises(ValueError, match=f"its outermost value is a {kind}, not an object"):
        parse_json(text)


def test_a_name_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="has the name 'a' more than once"):
        parse_json('{"b": {"a": 1, "a": 2}}')


def test_a_byte_order_mark_is_read_and_other_encodings_are_not(tmp_path):
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf{}")
    assert load_json(tmp_path / "bom.json") == {}
    (tmp_path / "latin.json").write_bytes('{"a": "ü"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="utf-8"):
        load_json(tmp_path / "latin.json")


def test_large_files_and_pipes_are_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="it is no regular file"):
        load_json(tmp_path / "pipe.json")
    monkeypatch.setattr(json_text, "MOST_BYTES", 10)
    (tmp_path / "large.json").write_text('{"a": 12345}')
    with pytest.raises(ValueError, match="it has 12 bytes, more than the 10 that are read"):
        load_json(tmp_path / "large.json")


RECORDS = {
    "[1]": "its outermost value is a list",
    '{"finished": "yes"}': "'finished' is 'yes'",
    '{"finished": {"epochs": "3", "steps": 1, "stopped_early": false}}': "'finished' is",
    '{"finished": {"epochs": 3, "steps": 1}}': "stopped_early",
    '{"loggers": {}}': "'loggers' is {}, not a list",
    '{"loggers": [3]}': "'loggers' holds 3, not an object",
    '{"loggers": [{"class": "CSVLogger", "name": "../../x", "version": "1"}]}': "not a name below the folder",
    '{"loggers": [{"class": "CSVLogger", "name": "a", "version": 1}]}': "a logger's 'version' is 1",
    DEEP: "nested 100000 levels deep",
}


@pytest.mark.parametrize("text", RECORDS, ids=lambda text: text[:20])
def test_a_damaged_record_of_a_run_is_one_error(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(MisconfigurationException) as caught:
        read_record(tmp_path)
    assert RECORDS[text] in str(caught.value) and str(tmp_path / "run.json") in str(caught.value)
    assert str(caught.value).endswith("remove it")


def test_notes_of_statistics_are_read_with_the_same_care(tmp_path):
    (tmp_path / "statistics.json").write_text(DEEP)
    with pytest.raises(ValueError, match="is damaged .*nested .* remove .* to fit the statistics again"):
        _read_layers(tmp_path / "statistics.json")
    assert _read_layers(tmp_path / "none.json") == {}


def test_every_json_file_goes_through_this_reader():
    """``json.loads`` elsewhere is only of text that the package has itself made in memory, by ``json.dumps``."""
    calls = []
    for path in Path(lightning_chex.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and ast.unparse(called) in ("json.load", "json.loads"):
                calls.append((path.name, ast.unparse(node.args[0])))
    others = [(name, given) for name, given in calls if not given.startswith("json.dumps(")]
    assert calls and others == [("json_text.py", "text")]
