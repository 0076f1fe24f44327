import re
from pathlib import Path

import pytest
import torch

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
