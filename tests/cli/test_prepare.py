"""`python -m lightning_chex prepare`, and training from what it made."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from commands import CONFIGS, TINY, written
from fakes import write_cohen, write_nih
from tiny import TinyTask, tiny_trainer

from lightning_chex.cli.main import main
from lightning_chex.data import PATHOLOGIES, NIHDataModule
from lightning_chex.data.images import images

FIT = [*TINY, "--model.backbone=test_resnet", "--trainer.logger=false", "--trainer.callbacks=null"]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    return write_nih(tmp_path_factory.mktemp("sources") / "nih")


def prepare(root: Path, copy: Path, *more: str) -> None:
    main(["prepare", "--data=NIHDataModule", f"--data.root={root}", f"--output_dir={copy}", "--workers=0", *more])


def the_error(capsys, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error:")] == lines[-1:]
    return lines[-1]


def test_the_command_writes_a_copy_and_nothing_else(nih, place, capsys, monkeypatch):
    def build(*_, **__):
        raise AssertionError("a model was built")

    monkeypatch.setattr(timm, "create_model", build)
    prepare(nih, place / "work" / "copy", "--size=40")
    assert np.load(place / "work" / "copy" / "images.npy").shape == (47, 40, 40)
    assert written(place) == {f"work/copy/{name}" for name in ("images.npy", "index.csv", "manifest.json")}
    assert "train with --data.size 40 --data.prepared" in capsys.readouterr().out


def test_the_data_set_may_be_found_out(nih, place, capsys):
    main(["prepare", f"--data.root={nih}", f"--output_dir={place / 'copy'}", "--workers=0", "--size=8"])
    assert "reading it as NIHDataModule" in capsys.readouterr().err and (place / "copy/manifest.json").is_file()


def test_the_size_is_that_of_a_config_file_unless_given(nih, tmp_path):
    config = ["--config", str(CONFIGS / "nih_classification.yaml"), f"--data.root={nih}", "--workers=0"]
    main(["prepare", *config, "--data.size=36", f"--output_dir={tmp_path / 'one'}"])
    main(["prepare", *config, "--data.size=36", "--size=24", f"--output_dir={tmp_path / 'two'}"])
    assert [np.load(tmp_path / name / "images.npy").shape[1] for name in ("one", "two")] == [36, 24]


def test_a_run_reads_the_copy(nih, place, capsys):
    prepare(nih, place / "copy", "--size=64")
    base = ["fit", "--data=NIHDataModule", f"--data.root={nih}", *FIT]
    main([*base, f"--data.prepared={place / 'copy'}"])
    assert "not in the prepared copy" in the_error(
        capsys,
        *("fit", "--config", str(CONFIGS / "cohen_regression.yaml"), *FIT),
        *(f"--data.root={write_cohen(place / 'cohen')}", f"--data.prepared={place / 'copy'}"),
    )
    (place / "copy" / "manifest.json").rename(place / "copy.json")
    assert "no prepared copy" in the_error(capsys, *base, f"--data.prepared={place / 'copy'}")


def test_a_training_is_the_same_to_the_last_bit(nih, tmp_path):
    NIHDataModule(root=str(nih), size=32).prepare(tmp_path / "copy", workers=0)
    weights = []
    for prepared in (None, str(tmp_path / "copy")):
        data = NIHDataModule(root=str(nih), size=32, batch_size=4, augment=True, prepared=prepared)
        task = TinyTask(PATHOLOGIES)
        torch.manual_seed(3)
        tiny_trainer(tmp_path).fit(task, datamodule=data)
        assert task.steps
        weights.append(task.state_dict())
    start = TinyTask(PATHOLOGIES).state_dict()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
    assert not torch.equal(weights[0]["model.6.weight"], start["model.6.weight"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data=SyntheticDataModule"], "SyntheticDataModule has no image files"),
        (["--data=NIHDataModule"], "no data root is given"),
        (["--data=NIHDataModule", "--data.root={nih}", "--size=0"], "size is 0: give at least 1"),
        (["--data=NIHDataModule", "--data.root={nih}", "--workers=-1"], "workers is -1: give at least 0"),
        (["--data=NIHDataModule", "--data.root={nih}", "--data.on_unreadable=no"], "on_unreadable"),
    ],
)
def test_one_line_says_what_is_wrong(nih, place, capsys, arguments, words):
    filled = [argument.format(nih=nih) for argument in arguments]
    assert words in the_error(capsys, "prepare", *filled, f"--output_dir={place / 'copy'}")
    assert not written(place)


def test_a_run_lists_the_images_it_went_without(nih, place, capsys, monkeypatch):
    root = write_nih(place / "nih")
    data = NIHDataModule(root=str(root), val_fraction=0.5)
    data.setup("fit")
    path = Path(data.dataset("val").paths[0])
    content = path.read_bytes()
    path.write_bytes(content[:41] + bytes(16) + content[57:])
    monkeypatch.setattr(images, "DECODED", 1)  # so that the check before the run does not meet this one
    base = ["fit", "--data=NIHDataModule", f"--data.root={root}", "--data.val_fraction=0.5", *FIT]
    base += ["--trainer.num_sanity_val_steps=0", f"--trainer.default_root_dir={place / 'runs'}"]
    for workers in (0, 1):  # a worker sends a whole traceback
        said = the_error(capsys, *base, f"--data.num_workers={workers}")
        assert said.startswith(f"error: cannot read image {path}")
    main([*base, "--data.on_unreadable=skip"])
    listed = [file for file in written(place / "runs") if file.endswith("unreadable_images.txt")]
    assert [(place / "runs" / file).read_text() for file in listed] == [path.stem + "\n"]
    assert "unreadable images, skipped: 1, listed in" in capsys.readouterr().out
