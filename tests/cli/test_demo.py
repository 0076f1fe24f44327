"""The command ``demo``: the embedded example, then commands that work as printed."""

import re
import shlex

import pytest
from commands import TINY, the_error

from lightning_chex.cli.main import main

PHANTOM = ["--data.num_train=8", "--data.num_val=4", "--data.num_test=4"]


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory):
    """A folder in which a small demo has run, and what it printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo")
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        main(["demo", *TINY, *PHANTOM])
    return folder, printed.getvalue()


def test_demo_trains_explains_and_names_the_next_commands(finished_demo):
    folder, printed = finished_demo
    assert "pictures" in printed and "next steps" in printed
    commands = re.findall(r"^    python -m lightning_chex (\w+)", printed, re.MULTILINE)
    assert commands == ["evaluate", "explain", "explain", "inspect"]
    assert list(folder.rglob("last.ckpt")) and list(folder.rglob("config.yaml"))


def test_the_printed_explain_command_runs(finished_demo, monkeypatch):
    folder, printed = finished_demo
    monkeypatch.chdir(folder)
    line = next(line for line in printed.splitlines() if "explain" in line and "--overlays" in line)
    main([*shlex.split(line)[3:], "--limit=1"])
    assert list((folder / "explanations" / "overlays").glob("*.png"))


def test_demo_takes_no_configuration(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "give --config to fit instead" in the_error(capsys, "demo", "--config", "mine.yaml")
