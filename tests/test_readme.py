import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_chex.data import ChestXrayDataModule

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_script_for_any_torch_model_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    section = README.split("## Any torch model, without Lightning")[1].split("\n## ")[0]
    (script,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(script.splitlines()) <= 15
    names: dict[str, torch.Tensor] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(script, "README.md", "exec"), names)  # the block itself is what is under test
    shape, bits = capsys.readouterr().out.splitlines()
    assert f"print(saliency.shape)  # {shape}\n" in script
    assert bits == str(names["saliency"].sum((1, 2)))
    assert (names["saliency"] >= 0).all() and (names["saliency"].sum((1, 2)) > 0).all()


def test_data_set_of_ones_own_is_served_as_printed(place: Path) -> None:
    section = README.split("**Another data set**")[1].split("\n## ")[0]
    script = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    assert len([line for line in script.splitlines() if line]) <= 25
    for name in "abcd":
        Image.fromarray(np.full((48, 40), 90, np.uint8)).save(f"{name}.png")
    names: dict[str, type[ChestXrayDataModule]] = {}
    exec(compile(script, "README.md", "exec"), names)  # the block itself is what is under test
    data = names["FracturesData"](size=32)
    data.setup()
    (batch,) = data.val_dataloader()
    assert (
        batch["image"].shape == (1, 3, 32, 32) and batch["label"].tolist() == [[0]] and batch["image_id"] == ["c.png"]
    )
    assert data.overview()["parts"][0]["positives"] == [1]
    assert data.pos_weight.tolist() == [1]  # so that it can be trained with weighted_bce
