"""A training that was interrupted goes on by one command, or says why it cannot."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from test_files import HOLDER, started

from lightning_chex.cli.main import main
from lightning_chex.runs import resuming
from lightning_chex.runs.resuming import newest_state

pytestmark = pytest.mark.filterwarnings("ignore")

TESTS = Path(__file__).parents[1]
WANDB = {"class_path": "WandbLogger", "init_args": {"project": "lightning_chex", "offline": True}}


def configuration(logger) -> dict:
    explained = {
        "attributor": {"class_path": "IBA", "init_args": {"layer": "2", "steps": 2}}, "num_images": 1
    }  # fmt: skip
    best = {"monitor": "val/loss", "filename": "best", "auto_insert_metric_name": False}
    return {
        "seed_everything": 0,
        "trainer": {
            "max_epochs": 4,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": logger,
            "callbacks": [
                *([{"class_path": "IBACallback", "init_args": explained}] if logger is WANDB else []),
                {"class_path": "ModelCheckpoint", "init_args": best},
            ],
        },
        "model": {"class_path": "interrupted.InterruptedTask"},
        "data": {"class_path": "tiny.TinyData"},
    }


def interrupt(folder: Path, at: str, logger) -> subprocess.CompletedProcess:
    """Run a real ``fit`` of four epochs of two batches in ``folder`` until a signal ends it."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(configuration(logger)))
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", str(TESTS.parent))])
    command = [sys.executable, str(TESTS / "interrupted.py"), at, "fit", "--config", "mine.yaml"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """A working folder with a run that was killed in the middle of its third epoch."""
    folder = tmp_path_factory.mktemp("killed")
    assert interrupt(folder, "2,1,SIGKILL", WANDB).returncode == -signal.SIGKILL
    return folder


@pytest.fixture
def place(killed, place):
    """The working folder of the test, with a copy of that run.

    Links stay links: W&B links its logs before its service has made the files, and a run killed
    early leaves such a link without an end.
    """
    shutil.copytree(killed, place / "work", symlinks=True, dirs_exist_ok=True)
    return place / "work"


def the_run(place: Path) -> Path:
    (run,) = (place / "runs" / "lightning_chex").iterdir()
    return run


def state(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2
    return line


def test_one_command_goes_on_to_what_an_uninterrupted_training_gives(place, capsys):
    run = the_run(place)
    assert state(run / "checkpoints" / "last.ckpt")["global_step"] == 4 and (run / "lock").exists()
    config = (run / "config.yaml").read_text()
    main(["fit", "--ckpt_path", "last"])
    assert the_run(place) == run
    assert {path.name.rpartition("-")[2] for path in (place / "runs" / "wandb").glob("offline-run-*")} == {run.name}
    assert len(list((place / "runs" / "wandb").glob("offline-run-*"))) == 2
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    for epoch in range(4):
        Image.open(run / "explanations" / f"epoch_{epoch:03d}.png").load()
    assert (run / "config.yaml").read_text() == config and not (run / "lock").exists()
    last = state(run / "checkpoints" / "last.ckpt")
    assert (last["epoch"], last["global_step"]) == (3, 8)
    main(["fit", "--config", "mine.yaml", "--trainer.logger=false", "--trainer.default_root_dir=whole"])
    whole = state(place / "whole" / "checkpoints" / "last.ckpt")
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, last["state_dict"][name]), name

    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:  # once more, when there is nothing left to do
        main(["fit", "--ckpt_path", str(run)])
    assert stop.value.code == 0 and "is finished, after 4 epochs and 8 steps" in capsys.readouterr().out
    main(["fit", "--ckpt_path", str(run), "--trainer.max_epochs=5"])
    assert state(run / "checkpoints" / "last.ckpt")["global_step"] == 10 and the_run(place) == run


def test_a_torn_checkpoint_is_passed_over(place, capsys):
    run = the_run(place)
    checkpoints = run / "checkpoints"
    (checkpoints / "best.ckpt").unlink()
    whole = (checkpoints / "last.ckpt").read_bytes()
    older = torch.load(checkpoints / "last.ckpt", weights_only=True)
    torch.save(older | {"global_step": 2, "epoch": 0}, checkpoints / "older.ckpt")
    torch.save({"state_dict": older["state_dict"], "epoch": 9, "global_step": 99}, checkpoints / "weights.ckpt")
    assert (newest_state(run).path.name, newest_state(run).step) == ("last.ckpt", 4)
    middle = len(whole) // 2
    for torn in (whole[:-1], whole[:middle], b"", whole[:middle] + bytes(512) + whole[middle + 512 :]):
        (checkpoints / "last.ckpt").write_bytes(torn)
        assert (newest_state(run).path.name, newest_state(run).step) == ("older.ckpt", 2)
    (checkpoints / "older.ckpt").write_bytes(whole[:middle])
    line = refused(capsys, "--ckpt_path", str(run))
    assert "no whole checkpoint" in line and "last.ckpt is truncated" in line and "leave --ckpt_path out" in line
    assert not list((run / "explanations").glob("epoch_002*"))  # nothing was trained


def test_what_cannot_go_on_is_refused(place, capsys):
    run = the_run(place)
    before = {path for path in place.rglob("*") if path.is_file()}
    assert "no run in 'empty'" in refused(capsys, "--ckpt_path=last", "--trainer.default_root_dir=empty")
    other = configuration(WANDB) | {"model": {"class_path": "tiny.TinyTask"}}
    Path("other.yaml").write_text(yaml.safe_dump(other))
    line = refused(capsys, "--config", "other.yaml", "--ckpt_path", "last")
    assert "interrupted.InterruptedTask" in line and "leave --config out" in line
    process = started(HOLDER, run)
    try:
        assert f"another process ({process.pid}) is at work" in refused(capsys, "--ckpt_path", "last")
    finally:
        process.kill()
        process.wait()
    (run / "config.yaml").rename("kept.yaml")
    assert "holds no config.yaml" in refused(capsys, "--ckpt_path", "last")
    Path("kept.yaml").rename(run / "config.yaml")
    for command in ("test", "validate", "predict"):  # Lightning would measure weights that nobody has trained
        with pytest.raises(SystemExit) as stop:
            main([command, "--config", "mine.yaml", "--ckpt_path", "last"])
        assert stop.value.code == 2 and "is supported by fit only" in capsys.readouterr().err
    assert {path for path in place.rglob("*") if path.is_file()} == before | {place / "other.yaml"}


def test_a_training_that_is_asked_to_end_keeps_its_state_in_mid_epoch(tmp_path, monkeypatch):
    ended = interrupt(tmp_path, "2,0,SIGTERM", logger=False)
    assert ended.returncode == 143 and "Traceback" not in ended.stderr, ended.stderr
    assert "fit --ckpt_path runs goes on" in ended.stderr
    last = tmp_path / "runs" / "checkpoints" / "last.ckpt"
    assert (state(last)["epoch"], state(last)["global_step"]) == (2, 5)
    monkeypatch.chdir(tmp_path)
    main(["fit", "--ckpt_path", "runs"])  # without a logger the root is the run's folder
    assert (state(last)["epoch"], state(last)["global_step"]) == (3, 8)


def test_interrupted_from_the_keyboard_the_last_epoch_and_its_metrics_are_kept(tmp_path, monkeypatch):
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "flush_logs_every_n_steps": 1}}
    ended = interrupt(tmp_path, "2,0,SIGINT", logger)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    (run,) = (tmp_path / "runs" / "lightning_logs").iterdir()
    assert state(run / "checkpoints" / "last.ckpt")["global_step"] == 4
    monkeypatch.chdir(tmp_path)
    main(["fit", "--ckpt_path", "last"])
    assert [path.name for path in (tmp_path / "runs" / "lightning_logs").iterdir()] == [run.name]
    assert {path.name for path in run.glob("*.csv")} == {"metrics.csv", "metrics_1.csv"}
    assert json.loads((run / "run.json").read_text())["finished"]["steps"] == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "it holds a list, not a mapping"),
        ("model: 3", "its 'model' is no class with init_args"),
        ("data: {init_args: [1]}", "its 'data' is no class with init_args"),
        ("[" * 5_000, "nested too deeply"),
        ("a: &a [1]\nb: &b [*a, *a]\nmodel: *c", "c"),
        ("\xff", "cannot read"),
    ],
    ids=["list", "number", "arguments", "deep", "alias", "encoding"],
)
def test_settings_of_a_run_that_cannot_be_read_are_one_error(tmp_path, text, words):
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(MisconfigurationException, match="config.yaml") as caught:
        resuming._read_settings(tmp_path / "config.yaml")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_without_settings_says_nothing_of_them(tmp_path):
    assert resuming._read_settings(tmp_path / "config.yaml") == {"model": {}, "data": {}}
