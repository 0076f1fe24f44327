"""Whatever is given as a checkpoint: every command says in one line what is wrong with it, before it does anything."""

import os
import zipfile
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from commands import TINY, the_error, written

from lightning_chex.cli.main import main

COMMANDS = ("fit", "test", "predict", "evaluate", "explain")
IN_ALL = ("plain_zip", "no_keys", "list", "runs", "nan", "another_module")

PHANTOM = [
    *TINY,
    "--data.num_train=8",
    "--data.num_val=4",
    "--data.num_test=4",
    "--model.backbone=test_resnet",  # timm's smallest
    "--trainer.logger=false",
    "--trainer.callbacks=null",
]

pytestmark = pytest.mark.filterwarnings("ignore")


class Runs:
    """Unpickled it would run code."""

    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a run of two steps has written."""
    root = tmp_path_factory.mktemp("trained")
    main(["fit", *PHANTOM, f"--trainer.default_root_dir={root}"])
    (path,) = root.rglob("*.ckpt")
    return path


def spoilt(trained: Path, **changes) -> dict:
    content = torch.load(trained, weights_only=True)
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


def plain_zip(path, trained):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no checkpoint")


def script(path, trained):
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)


def with_nan(path, trained):
    weights = spoilt(trained)["state_dict"]
    name = next(name for name, value in weights.items() if name.endswith(".weight"))
    torch.save(spoilt(trained, state_dict={**weights, name: weights[name] * torch.nan}), path)


def of_another_size(path, trained):
    weights = spoilt(trained)["state_dict"]
    name = next(iter(weights))
    torch.save(spoilt(trained, state_dict={**weights, name: weights[name][:1]}), path)


def of_another_module(path, trained):
    module = pl.LightningModule()
    module.head = torch.nn.Linear(2, 2)
    torch.save(spoilt(trained, state_dict=module.state_dict(), hyper_parameters=None), path)


ODD = {
    "plain_zip": (plain_zip, "damaged"),
    "script": (script, "is compressed and may become of any size"),
    "empty": (lambda path, trained: path.touch(), "it is empty"),
    "folder": (lambda path, trained: path.mkdir(), "it is a folder"),
    "text": (lambda path, trained: path.write_text("epoch: 3\n"), "another kind of file"),
    "pipe": (lambda path, trained: os.mkfifo(path), "it is no regular file"),
    "circle": (lambda path, trained: path.symlink_to(path.name), "cannot be read (Too many levels of symbolic links)"),
    "missing": (lambda path, trained: None, "does not exist"),
    "cut_short": (lambda path, trained: path.write_bytes(trained.read_bytes()[:-2000]), "cut short"),
    "list": (lambda path, trained: torch.save([1, 2], path), "it holds a list where a run keeps a dict"),
    "tensor": (lambda path, trained: torch.save(torch.zeros(2), path), "it holds a Tensor"),
    "no_keys": (lambda path, trained: torch.save({"a": 1}, path), "it has no state_dict, pytorch-lightning_version"),
    "weights": (lambda path, trained: torch.save(spoilt(trained)["state_dict"], path), "it has no state_dict"),
    "runs": (
        lambda path, trained: torch.save(spoilt(trained, extra=Runs()), path),
        "it holds posix.system, which could run code",
    ),
    "odd_weights": (lambda path, trained: torch.save(spoilt(trained, state_dict=[1]), path), "state_dict is a list"),
    "odd_names": (lambda path, trained: torch.save(spoilt(trained, state_dict={"a": 1}), path), "other things than"),
    "odd_settings": (lambda path, trained: torch.save(spoilt(trained, hyper_parameters=3), path), "is a int"),
    "nan": (with_nan, "hold NaN (model.conv1.0.weight for one), so its training had diverged"),
    "another_size": (of_another_size, "1 tensors differ, such as"),
    "another_module": (of_another_module, "does not fit the model of the configuration, ClassificationTask"),
}


@pytest.mark.parametrize(
    ("command", "kind"),
    [*(("validate", kind) for kind in ODD), *((command, kind) for command in COMMANDS for kind in IN_ALL)],
)
def test_an_odd_checkpoint_is_one_line_in_every_command(place, trained, capsys, command, kind):
    make, words = ODD[kind]
    path = place / f"{kind}.ckpt"
    make(path, trained)
    error = the_error(capsys, command, *PHANTOM, f"--ckpt_path={path}")
    assert f"ckpt_path='{path}'" in error and words in error and "give" in error
    assert not written(place / "work")  # nothing was executed, trained or begun


@pytest.mark.parametrize("lacking", ["optimizer_states", "lr_schedulers", "loops", "global_step"])
def test_a_training_does_not_go_on_from_weights_alone(place, trained, capsys, lacking):
    torch.save(spoilt(trained, **{lacking: None}), "bare.ckpt")
    error = the_error(capsys, "fit", *PHANTOM, "--ckpt_path=bare.ckpt")
    assert f"it has no {lacking}, so it holds weights alone and no training can go on from it" in error
    main(["validate", *PHANTOM, "--ckpt_path=bare.ckpt"])  # which needs nothing more


def test_a_whole_checkpoint_passes(place, trained):
    main(["fit", *PHANTOM, f"--ckpt_path={trained}", "--trainer.max_epochs=2"])
    assert any(name.endswith(".ckpt") for name in written(place / "work"))
