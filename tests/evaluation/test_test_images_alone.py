"""A copy of a data set that holds test images alone is evaluated, by the statistics its checkpoint brings."""

import json
import shutil

import pytest
import yaml
from fakes import write_nih
from small_evaluations import CONFIG, SETTINGS

from lightning_chex.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def trained(tmp_path):
    """Configuration and checkpoint of a network trained on the whole copy, and the whole copy."""
    config = json.loads(json.dumps(CONFIG))
    config["trainer"]["default_root_dir"] = str(tmp_path / "run")
    root = write_nih(tmp_path / "nih")
    config["data"] = {
        "class_path": "NIHDataModule",
        "init_args": {"root": str(root), "size": 64, "batch_size": 8, "augment": False, "val_fraction": 0.3},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(path)])
    (checkpoint,) = (tmp_path / "run").rglob("*.ckpt")
    return ["--config", str(path), "--ckpt_path", str(checkpoint), *SETTINGS], root


def test_test_images_alone_are_enough(trained, tmp_path, capsys):
    options, root = trained
    alone = shutil.copytree(root, tmp_path / "alone")
    for name in (alone / "train_val_list.txt").read_text().split():
        (alone / "images_001" / "images" / name).unlink()
    there = ["--data.root", str(alone), "--data.allow_missing=true"]
    main(["evaluate", *options, *there, "--output_dir", str(tmp_path / "out"), "--methods=[IBA,InverseIBA,Gradient]"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (statistics,) = results["protocol"]["statistics"].values()
    assert statistics["from"] == "checkpoint" and statistics["images"] >= 8
    # the boxes of the tuning half lie on test images too: thresholds and prior are there all the same
    assert "PriorMap" in results["controls"] and results["methods"]["IBA"]["iou/tuned"]["n"] == 8
    assert results["protocol"]["data"]["images"] == 8
    # the whole copy is other data: nothing is mixed
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", *options, "--output_dir", str(tmp_path / "out"), "--methods=[IBA]"])
    assert "other data" in capsys.readouterr().err
