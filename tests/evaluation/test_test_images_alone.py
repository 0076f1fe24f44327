"""A copy of a data set that holds test images alone is evaluated, by the statistics its checkpoint brings."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from fakes import write_nih
from small_evaluations import CONFIG, SETTINGS

from lightning_chex.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Configuration and checkpoint of a network trained on the whole copy, and the whole copy."""
    folder = tmp_path_factory.mktemp("trained")
    config = json.loads(json.dumps(CONFIG))
    config["trainer"]["default_root_dir"] = str(folder / "run")
    root = write_nih(folder / "nih")
    config["data"] = {
        "class_path": "NIHDataModule",
        "init_args": {"root": str(root), "size": 64, "batch_size": 8, "augment": False, "val_fraction": 0.3},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(path)])
    (checkpoint,) = (folder / "run").rglob("*.ckpt")
    return ["--config", str(path), "--ckpt_path", str(checkpoint)], root


@pytest.fixture(params=["missing", "empty"])
def alone(request, trained, tmp_path):
    """A copy without training images: these alone are missing, or their list is empty, or absent, too."""
    root = shutil.copytree(trained[1], tmp_path / "alone")
    names = root / "train_val_list.txt"
    for name in names.read_text().split():
        (root / "images_001" / "images" / name).unlink()
    if request.param == "missing":
        return ["--data.root", str(root), "--data.allow_missing=true"]
    table = root / "Data_Entry_2017_v2020.csv"
    gone = set(names.read_text().split())
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if line.split(",")[0] not in gone) + "\n")
    names.write_text("\n") if request.param == "empty" else names.unlink()
    return ["--data.root", str(root)]


def test_test_images_alone_are_enough(trained, alone, tmp_path, capsys):
    options = [*trained[0], *SETTINGS]
    main(["evaluate", *options, *alone, "--output_dir", str(tmp_path / "out"), "--methods=[IBA,InverseIBA,Gradient]"])
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


@pytest.mark.parametrize("alone", ["empty", "absent"], indirect=True)
def test_no_command_but_fit_needs_training_images(trained, alone, tmp_path, capsys):
    options, run = trained[0], ["--trainer.default_root_dir", str(tmp_path / "run")]
    main(["test", *options, *alone, *run])
    main(["predict", *options, *alone, *run])
    main(["explain", *options, *alone, "--output_dir", str(tmp_path / "maps")])
    assert list((tmp_path / "run").rglob("predictions.csv")) and list((tmp_path / "maps").rglob("*.npy"))
    main(["inspect", "--data", "NIHDataModule", alone[0], alone[1], "--output_dir", str(tmp_path / "seen")])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", *options[:2], *alone, *run])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "train split of NIHDataModule holds no image" in line


def test_explaining_training_images_needs_no_test_image(trained, tmp_path):
    root = shutil.copytree(trained[1], tmp_path / "training")
    for name in (root / "test_list.txt").read_text().split():
        (root / "images_001" / "images" / name).unlink()
    there = ["--data.root", str(root), "--data.allow_missing=true"]
    main(["explain", *trained[0], *there, "--split=train", "--limit=2", "--output_dir", str(tmp_path / "maps")])
    assert list((tmp_path / "maps").rglob("*.npy"))


@pytest.mark.parametrize("alone", ["empty"], indirect=True)
@pytest.mark.parametrize("noted", [True, False])
def test_images_of_another_size_are_named_first_and_the_rest_is_measured(trained, alone, tmp_path, capsys, noted):
    """Statistics of 64 px do not fit 96 px: IBA is left out of everything, and the evaluation comes to its end."""
    options = list(trained[0])
    if not noted:  # as older checkpoints are: the statistics' shapes tell the size
        content = torch.load(options[-1], weights_only=True)
        assert content.pop("image_size") == 64
        options[-1] = str(tmp_path / "older.ckpt")
        torch.save(content, options[-1])
    capsys.readouterr()
    out = tmp_path / "out"
    # of 16 images an eighth is tuned on, and two are enough for randomised networks to learn from
    main(["evaluate", *options, *alone, *SETTINGS, "--limit=16", "--data.size=96", "--output_dir", str(out)])
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "the model was trained on images of 64 px and is evaluated at 96 px"
    results = json.loads((out / "results.json").read_text())
    assert results["protocol"]["trained_size"] == 64
    for name in ("IBA", "InverseIBA"):
        assert "none for images of this size" in results["left_out"][name]
        assert name not in results["methods"] and not list(out.rglob(f"*{name}*"))
        assert name not in json.loads((out / "evaluation.json").read_text())["methods"]
    assert results["methods"]["Gradient"]["randomization"]["n"] > 0
    assert "the model was trained on images of 64 px" in (out / "report.html").read_text()


def test_other_commands_name_another_size_too(trained, tmp_path):
    with pytest.warns(UserWarning, match="trained on images of 64 px, and data.size is 96"):
        main(["predict", *trained[0], "--data.size=96", "--trainer.default_root_dir", str(tmp_path)])


def test_a_checkpoint_is_enough_without_a_network(trained, tmp_path, monkeypatch):
    """``pretrained: true`` is for the beginning of a training; whoever has a checkpoint fetches nothing."""
    from lightning_chex.tasks import classification

    original = classification.create_backbone

    def offline(name, num_outputs, pretrained):
        assert not pretrained
        return original(name, num_outputs, pretrained)

    monkeypatch.setattr(classification, "create_backbone", offline)
    run = ["--trainer.default_root_dir", str(tmp_path)]
    main(["predict", *trained[0], "--model.pretrained=true", *run])
    with pytest.raises(SystemExit):
        main(["fit", *trained[0][:2], "--model.pretrained=true", *run])
    assert Path(tmp_path / "predictions.csv").is_file()
