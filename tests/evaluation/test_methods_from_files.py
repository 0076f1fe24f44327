"""Methods that are not in the line-up, through ``evaluate``, from files like those of ``configs/attributor``."""

import json

import pytest
import yaml
from small_evaluations import SETTINGS

from lightning_chex.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")

ARGUMENTS = {
    "GradCAMPlusPlus": {"layer": "layer2"},
    "SmoothGrad": {"samples": 2},
    "ExpectedGradients": {"baselines": 4, "samples": 4},
    "SharedIBA": {"layers": ["layer1", "layer2"], "steps": 2},
    "InputIBA": {"layer": "layer2", "steps": 2},
}


def test_every_further_method_is_measured_and_taken_up_again(classifier, tmp_path):
    files = []
    for name, arguments in ARGUMENTS.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(
            yaml.safe_dump({"class_path": f"lightning_chex.attribution.{name}", "init_args": arguments})
        )
    command = ["evaluate", "--config", classifier.config, "--ckpt_path", classifier.checkpoint, *SETTINGS]
    command += [f"--methods=[{','.join(map(str, files))}]", f"--output_dir={tmp_path / 'out'}", "--limit=3"]
    main(command)
    first = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(first["methods"]) == list(ARGUMENTS) and first["left_out"] == {}
    for name, found in first["methods"].items():
        assert found["iou/fixed_share"]["n"] == first["protocol"]["data"]["targets"], name
        assert found["blank"]["value"] < 1 and "randomization" in found, name
    learnt = first["protocol"]["statistics"]
    assert learnt["ExpectedGradients"] == {"images": 4, "from": "training split"}
    assert learnt["InputIBA"] == learnt["layer1"] == {"images": 12, "from": "training split"}
    main(command)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == first
