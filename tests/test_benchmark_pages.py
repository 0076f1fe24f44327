"""Markdown tables and the stated origin of the benchmarks' results."""

import math
import subprocess
import sys

import pytest

from benchmarks import origin, pages


def test_a_table_has_a_head_a_rule_and_one_line_a_row():
    assert pages.table(["method", "IoU"], [["IBA", 0.25]]) == ["| method | IoU |", "|---|---|", "| IBA | 0.25 |"]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row of 1 cells below a head of 2"):
        pages.table(["method", "IoU"], [["IBA"]])


def test_records_become_a_table_of_their_keys():
    assert pages.table_of_records([{"a": 1, "b": 2}]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    assert pages.table_of_records([]) == "(none)"


def test_intervals_state_their_sign_and_their_absence():
    assert pages.interval(0.25, -0.5, 1.0, signed=True) == "+0.250 (-0.500 to +1.000)"
    assert pages.interval(0.25, math.nan, math.nan, digits=2) == "0.25 (no interval)"


def test_spread_is_the_median_with_the_range():
    assert pages.spread([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0 to 3.0)"


def test_the_command_replaces_paths(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ignored", "--ckpt_path", "secret/model.ckpt", "--rounds", "3"])
    found = origin.command("benchmarks.beta", {"secret/model.ckpt": "CKPT"})
    assert found == "python -m benchmarks.beta --ckpt_path CKPT --rounds 3"


def test_the_commit_is_marked_where_files_differ_from_it(tmp_path, monkeypatch):
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    file = tmp_path / "file.txt"
    file.write_text("one")
    subprocess.run([*git, "add", "file.txt"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    monkeypatch.chdir(tmp_path)
    clean = origin.commit()
    file.write_text("two")
    assert not clean.endswith("+") and origin.commit() == f"{clean}+"


def test_the_machine_states_versions_and_load():
    assert "torch" in origin.machine() and "load average" in origin.machine()
