"""The method of docs/how_to/own_method.md, as printed there, through every command that explains."""

import copy
import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_evaluations import CONFIG, METHODS, SETTINGS

from lightning_chex.attribution import Attributor
from lightning_chex.cli.main import main
from lightning_chex.data import SyntheticDataModule
from lightning_chex.maps import read_saliency
from lightning_chex.tasks import ClassificationTask

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "own_method.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.filterwarnings("ignore")


def logged(folder, key):
    """The values of a scalar, of all runs below a folder."""
    found = []
    for path in folder.rglob("metrics.csv"):
        found += [float(row[key]) for row in csv.DictReader(path.open()) if row.get(key)]
    return found


def test_a_method_of_twelve_lines_takes_part_in_fit_validate_explain_and_evaluate(tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(source.splitlines()) <= 12
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (configured,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (line,) = re.findall(r"`(class_path: mine\.InputXGradient)`", PAGE)
    (tmp_path / "input_x_gradient.yaml").write_text(line)

    config = copy.deepcopy(CONFIG)
    config["trainer"]["callbacks"] = yaml.safe_load(configured)["trainer"]["callbacks"]
    for stage in ("fit", "validate"):
        config["trainer"]["logger"] = {
            "class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path / stage)}
        }  # fmt: skip
        config["trainer"]["default_root_dir"] = str(tmp_path / stage)
        (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(tmp_path / "fit.yaml")])
    (checkpoint,) = (tmp_path / "fit").rglob("*.ckpt")
    common = ["--config", str(tmp_path / "validate.yaml"), "--ckpt_path", str(checkpoint)]
    main(["validate", *common])
    (fitted,), (validated,) = (logged(tmp_path / stage, "val/iba_iou") for stage in ("fit", "validate"))
    assert fitted == pytest.approx(validated) and 0 < fitted < 1

    common += ["--trainer.logger", "false"]
    main(["explain", *common, f"--output_dir={tmp_path / 'maps'}", "--attributor", "mine.InputXGradient"])
    with (tmp_path / "maps" / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    from mine import InputXGradient

    assert issubclass(InputXGradient, Attributor)
    task = ClassificationTask.load_from_checkpoint(checkpoint).cpu()
    data = SyntheticDataModule(**config["data"]["init_args"])
    data.setup("test")
    images = {sample["image_id"]: sample["image"] for sample in data.dataset("test")}
    for row in rows[:3]:
        target = torch.tensor([task.class_names.index(row["target"])])
        wanted = InputXGradient().attribute(task.model, images[row["image"]][None], target)[0]
        np.testing.assert_allclose(read_saliency(tmp_path / "maps", row), wanted, rtol=1e-3, atol=1e-6)
        assert float(row["sum"]) == pytest.approx(float(wanted.sum()), rel=1e-3)

    (tmp_path / "IBA_layer1.yaml").write_text(yaml.safe_dump(METHODS["IBA_layer1"]))
    methods = f"--methods=[{tmp_path / 'IBA_layer1.yaml'},{tmp_path / 'input_x_gradient.yaml'}]"
    main(["evaluate", *common, f"--output_dir={tmp_path / 'out'}", methods, *SETTINGS])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["methods"]) == ["IBA_layer1", "input_x_gradient"]
    assert 0 < results["methods"]["input_x_gradient"]["iou/fixed_share"]["value"] < 1
