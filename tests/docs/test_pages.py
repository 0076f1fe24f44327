"""The documentation: it builds without a warning, its code runs, and its commands have the options they name."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_chex.cli.help_pages import unknown_class, unknown_command, unknown_option
from lightning_chex.data import ChestXrayDataModule
from lightning_chex.evaluation import MEASURES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# what conf.py copies into docs is ignored by git, and tested where it lies
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if path.parent.name not in ("results", "_build")),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Every command line of this package on a page, without comments and continuations."""
    found = []
    for page in PAGES:
        for block in blocks(page, "(?:sh|bash|text)") + blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.search(r"(?:python -m lightning_chex|lightning-chex) ([a-z]+ .*)", line)
                if match:
                    found.append((page.name, match[1].partition("  #")[0]))
    return found


def test_there_are_commands_on_the_pages():
    assert len(commands()) > 30


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: value[:60])
def test_a_command_has_the_options_it_names(page, line):
    arguments = shlex.split(line.replace("...", ""))
    assert (unknown_command(arguments) or unknown_option(arguments) or unknown_class(arguments)) is None


def test_first_maps_print_what_the_page_says(capsys):
    (script,) = blocks(DOCS / "start" / "first_maps.md", "python")
    names: dict[str, torch.Tensor] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(script, "first_maps.md", "exec"), names)
    shape, bits = capsys.readouterr().out.splitlines()
    assert f"print(saliency.shape)  # {shape}\n" in script
    assert bits == str(names["saliency"].sum((1, 2))) and (names["saliency"].sum((1, 2)) > 0).all()


def test_a_data_set_of_your_own_is_served_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (script,) = blocks(DOCS / "how_to" / "own_data_set.md", "python")
    assert len([line for line in script.partition("class Fractures(")[2].splitlines() if line]) <= 25
    for name in "abcd":
        Image.fromarray(np.full((48, 40), 90, np.uint8)).save(f"{name}.png")
    names: dict[str, type[ChestXrayDataModule]] = {}
    exec(compile(script, "own_data_set.md", "exec"), names)
    data = names["FracturesData"](size=32)
    data.setup()
    (batch,) = data.val_dataloader()
    assert batch["image"].shape == (1, 3, 32, 32) and batch["image_id"] == ["c.png"]
    assert batch["label"].tolist() == [[0]]
    assert data.overview()["parts"][0]["positives"] == [1]
    assert data.pos_weight.tolist() == [1]  # so that it can be trained with weighted_bce


def test_a_measure_of_your_own_is_declared_as_printed(monkeypatch):
    (script,) = blocks(DOCS / "how_to" / "own_measure.md", "python")
    monkeypatch.delitem(MEASURES, "largest_value", raising=False)
    try:
        exec(compile(script, "own_measure.md", "exec"), {})
        assert MEASURES["largest_value"].title == "Largest value"
    finally:
        MEASURES.pop("largest_value", None)


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "index.html").is_file() and (tmp_path / "reference" / "api" / "attribution.html").is_file()
    page = (tmp_path / "concepts" / "bottleneck.html").read_text(encoding="utf-8")
    assert "<math" in page and "https://cdn" not in page
