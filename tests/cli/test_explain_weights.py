"""Explaining a network that was trained elsewhere, on a folder of X-rays, without a checkpoint of ours."""

import csv

import numpy as np
import pytest
import torch
from commands import the_error
from PIL import Image

from lightning_chex.attribution import IBA
from lightning_chex.cli.main import main
from lightning_chex.data import ImageTransform
from lightning_chex.maps import read_index, read_saliency
from lightning_chex.tasks import create_backbone

pytestmark = pytest.mark.filterwarnings("ignore")

SETTINGS = [
    "--data=ImageFolderDataModule",
    "--model.backbone=test_resnet",
    "--data.size=64",
    "--trainer.accelerator=cpu",
]
METHOD = [
    "--attributor=IBA",
    "--attributor.layer=layer2",
    "--attributor.steps=2",
    "--trainer.enable_progress_bar=false",
]
FOLDERS = ["--data.root=own", "--data.statistics_root=others"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Three X-rays to explain, eight others, and the weights of a network."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, count in (("own", 3), ("others", 8)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / folder / f"x{i}.png")
    torch.manual_seed(0)
    network = create_backbone("test_resnet", 2, False)
    torch.save(network.state_dict(), tmp_path / "network.pt")
    return tmp_path, network.eval()


def images(folder):
    transform = ImageTransform(64)
    return torch.stack([transform(np.asarray(Image.open(path)))["image"] for path in sorted(folder.glob("*.png"))])


def test_maps_are_those_of_the_network_with_statistics_of_the_other_folder(place):
    folder, network = place
    arguments = ["--model.weights=network.pt", "--data.class_names=[Edema,Mass]", "--targets=[Edema,Mass]"]
    main(["explain", *SETTINGS, *METHOD, *FOLDERS, *arguments, "--output_dir=OUT"])
    rows = list(csv.DictReader((folder / "OUT" / "index.csv").open(encoding="utf-8")))
    own = images(folder / "own")
    with torch.no_grad():
        said = network(own).sigmoid()
    found = {(row["image"], row["target"]): float(row["prediction"]) for row in rows}
    expected = {(f"x{i}", name): float(said[i, k]) for i in range(3) for k, name in enumerate(("Edema", "Mass"))}
    assert found == pytest.approx(expected, abs=1e-4)
    method = IBA("layer2", steps=2)
    method.fit(network, [images(folder / "others")])
    for row in read_index(folder / "OUT"):
        i, k = int(row["image"][1]), ("Edema", "Mass").index(row["target"])
        one = method.attribute(network, own[i : i + 1], torch.tensor([k]))[0]
        torch.testing.assert_close(torch.as_tensor(read_saliency(folder / "OUT", row)), one, rtol=2e-3, atol=1e-5)


def test_what_is_lacking_is_said(place, capsys):
    folder, _ = place
    weights, names = "--model.weights=network.pt", "--data.class_names=[Edema,Mass]"
    out = "--output_dir=OUT"
    error = the_error(capsys, "explain", *SETTINGS, *METHOD, *FOLDERS, names, out)
    assert (
        "no checkpoint: give the trained model with --ckpt_path FILE.ckpt" in error and "--model.weights FILE" in error
    )
    error = the_error(capsys, "explain", *SETTINGS, *METHOD, *FOLDERS, weights, out)
    assert "weights='network.pt' does not name its outputs: set data.class_names" in error
    error = the_error(capsys, "explain", *SETTINGS, *METHOD, "--data.root=own", weights, names, out)
    assert "no feature statistics of layer2" in error and "data.statistics_root" in error
    error = the_error(
        capsys, "explain", *SETTINGS, *METHOD, "--data.root=own", "--data.statistics_root=no", weights, names, out
    )
    assert "statistics_root is 'no', which does not exist" in error
    error = the_error(capsys, "predict", *SETTINGS, *FOLDERS, weights, names)
    assert "no checkpoint: give the trained model" in error
