"""The plain installation has what a training with its callback needs; the rest says which extra brings it."""

import os
import subprocess
import sys
import tomllib

import pandas as pd
import pytest
import torch
from commands import CONFIGS

from lightning_chex import extras
from lightning_chex.attribution import IBA, LRP, GradCAM, Gradient, IntegratedGradients, SmoothGrad
from lightning_chex.data import DataError
from lightning_chex.data.table.reading import read_text_table
from lightning_chex.extras import EXTRAS, MissingExtraError, check_extra, needing
from lightning_chex.tasks import create_unet

ROOT = CONFIGS.parent
BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted([*EXTRAS, "openjpeg"])!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def plain(tmp_path):
    """Run a command in a process that cannot import what only extras install."""
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join([str(tmp_path / "start"), str(ROOT), os.environ.get("PYTHONPATH", "")])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lightning_chex", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    return run


def test_all_brings_the_extras_of_users_but_two():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]
    assert set(EXTRAS.values()) <= declared.keys()
    (everything,) = declared["all"]
    names = set(everything.removeprefix("lightning-chex[").removesuffix("]").split(","))
    assert declared.keys() - names == {"all", "dev", "docs", "dicom-jpeg", "mlflow"}
    plain_names = " ".join(project["dependencies"])
    assert all(package not in plain_names for package in ("captum", "zennit", "segmentation", "pylibjpeg", "pyarrow"))


SMALL = ["--model.backbone=test_resnet", "--data.size=64", "--data.num_train=8", "--data.num_val=8"]
QUICK = ["--trainer.max_epochs=1", "--data.num_workers=0", "--data.batch_size=4"]


@pytest.fixture
def config(tmp_path) -> list[str]:
    """The embedded example with a layer of the small network."""
    text = (ROOT / "lightning_chex" / "cli" / "default.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("features.denseblock2", "layer2"))
    return ["--config", str(tmp_path / "mine.yaml"), *SMALL, *QUICK]


def test_the_plain_installation_trains_and_names_the_extra_of_other_methods(plain, config, tmp_path):
    done = plain("fit", *config)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("epoch_000.png"))
    (checkpoint,) = tmp_path.rglob("best.ckpt")
    chosen = ["--attributor=lightning_chex.attribution.LRP", "--output_dir=out", f"--ckpt_path={checkpoint}"]
    done = plain("explain", *config, *chosen)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ") and "pip install 'lightning-chex[lrp]'" in error


def without(monkeypatch, package: str) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == package else object())


@pytest.mark.parametrize(
    ("method", "package", "extra"),
    [
        (LRP(), "zennit", "lrp"),
        (GradCAM("0"), "captum", "gradients"),
        (Gradient(), "captum", "gradients"),
        (IntegratedGradients(), "captum", "gradients"),
        (SmoothGrad(), "captum", "gradients"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_methods_name_their_extra_when_checked_and_when_called(monkeypatch, method, package, extra):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    images = torch.rand(1, 3, 8, 8)
    without(monkeypatch, package)
    words = rf"the method {type(method).__name__} needs {package}, .*: pip install 'lightning-chex\[{extra}\]'"
    with pytest.raises(MissingExtraError, match=words):
        method.check(model)
    with pytest.raises(MissingExtraError, match=words):
        method.attribute(model, images, torch.tensor([0]))
    IBA("0").check(model)


def test_a_missing_package_is_told_from_an_error_within_it():
    with (
        pytest.raises(MissingExtraError, match="a lung network needs zennit, .*lightning-chex.lrp."),
        needing("zennit", "a lung network"),
    ):
        raise ModuleNotFoundError("No module named 'zennit.core'", name="zennit.core")
    with pytest.raises(ModuleNotFoundError, match="numpy"), needing("zennit", "a lung network"):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")
    check_extra("openpyxl", "a table")


def test_a_lung_network_and_an_excel_table_say_their_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(MissingExtraError, match="a lung network needs .*lightning-chex.segmentation."):
        create_unet("resnet18", 2, pretrained=False)
    pd.DataFrame({"image": ["a.png"], "Mass": ["1"]}).to_excel(tmp_path / "table.xlsx", index=False)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match="needs the package openpyxl: pip install 'lightning-chex.excel.'"):
        read_text_table(tmp_path / "table.xlsx")
