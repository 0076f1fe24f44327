"""The README: its length, its links, and its code as printed."""

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tiny import TinyData, TinyTask

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def script_of(section: str) -> str:
    (script,) = re.findall(r"```python\n(.*?)```", README.split(f"## {section}\n")[1].split("\n## ")[0], re.DOTALL)
    assert len(script.splitlines()) <= 9
    return script


def test_the_first_screen_names_what_to_do():
    assert len(README.splitlines()) <= 90
    first_screen = "\n".join(README.splitlines()[:20])
    for command in ("make demo", "make test", "pip install", "lightning-chex demo"):
        assert command in first_screen


def test_links_lead_to_files():
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    assert len(targets) > 20
    for target in targets:
        assert (ROOT / target).is_file(), target


def test_a_model_is_explained_as_printed():
    names: dict[str, torch.Tensor] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(script_of("Explain a model"), "README.md", "exec"), names)
    assert names["saliency"].shape == (4, 128, 128)
    assert (names["saliency"] >= 0).all() and (names["saliency"].sum((1, 2)) > 0).all()


@pytest.mark.filterwarnings("ignore")
def test_a_training_is_explained_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = TinyData()
    script = script_of("Explain your training").replace('layer="layer3"', 'layer="model.0", steps=2')
    script = script.replace("max_epochs=10,", "max_epochs=1, logger=False, enable_checkpointing=False,")
    names = {"my_module": TinyTask(), "train_loader": data.train_dataloader(), "val_loader": data.val_dataloader()}
    exec(compile(script.replace("model.0", "0"), "README.md", "exec"), names)
    trainer = names["trainer"]
    assert isinstance(trainer, pl.Trainer)
    assert list(tmp_path.rglob("epoch_000.png"))
