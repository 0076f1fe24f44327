"""From a stranger's CSV to a training with explanations, in two commands."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import TINY, the_error, written
from PIL import Image

from lightning_chex.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")

TABLE = ["--data=TableDataModule", "--data.table=T.csv", "--data.root=xrays"]


QUICK = [
    "--settings.sensitivity_sizes=3",
    "--settings.sensitivity_masks=4",
    "--settings.resamples=100",
    "--settings.step=512",
    "--settings.statistics_images=12",
    "--settings.perturbation_images=2",
    "--settings.randomization_images=2",
    "--settings.tuning_images=4",
]


def write_table(folder: Path, score: bool = False) -> None:
    """32 X-rays of 16 patients; Edema is a bright square with a box, Mass is known of half the images."""
    rng = np.random.default_rng(0)
    lines = ["Name;Patient ID;Sex;View Position;" + ("severity" if score else "Edema;Mass")]
    boxes = ["image,finding,x,y,width,height"]
    for i in range(32):
        edema, mass = i // 2 % 2, ("0", "1", "-1", "")[i // 4 % 4]
        pixels = rng.integers(0, 80, (48, 64), dtype=np.uint8)
        pixels[10:30, 8:30] += np.uint8(120 * edema)
        path = folder / "xrays" / f"ward{i % 3}" / f"s{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        label = f"{i % 7},5" if score else f"{edema};{mass}"
        lines.append(f"s{i}.png;{100 + i // 2}.0;{'FM'[i // 2 % 2]};{'LL' if i % 5 == 4 else 'PA'};{label}")
        boxes += [f"s{i},edema,8,10,22,20"] * edema
    (folder / "T.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    (folder / "B.csv").write_text("\n".join(boxes))


def small(config: Path) -> str:
    """The same configuration with a network in which nothing takes long."""
    text = config.read_text().replace("densenet121", "test_resnet")
    text = text.replace("{layer: features.denseblock3", "{layer: layer2, steps: 2")
    changed = config.with_stem("small")
    changed.write_text(text)
    return str(changed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which both commands were given, what the first one said, and the checkpoint."""
    folder = tmp_path_factory.mktemp("own_table")
    write_table(folder)
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as output:
        patch.chdir(folder)
        said: list[str] = []
        output.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        main(["inspect", *TABLE, "--data.boxes=B.csv", "--data.view=[PA]", "--write_config=mine.yaml"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", small(folder / "mine.yaml"), *TINY])
    (last,) = folder.glob("runs/lightning_chex/*/checkpoints/last.ckpt")
    return folder, "\n".join(said), str(last)


def test_inspect_says_and_writes_what_it_recognised(trained):
    folder, said, _ = trained
    for words in (
        "image   'Name' (recognised, such as s0.png",
        "patient 'Patient ID' (recognised",
        "labels  'Edema', 'Mass' (recognised)",
        "sex     'Sex' (recognised, F 16 times, M 16 times)",
        "boxes   'x', 'y', 'width', 'height', read as xywh",
        "labels that say -1 or u (data.uncertain): left out of loss and scores",
        "configuration   mine.yaml",
    ):
        assert words in said
    assert "not known" in said and "TableDataModule: 26 images of 16 patients" in said
    seen = [i for i in range(32) if i % 5 != 4]
    known, positive = (sum(("0", "1", "-1", "")[i // 4 % 4] in words for i in seen) for words in (("0", "1"), ("1",)))
    (mass,) = [line.split() for line in said.splitlines() if line.split()[:1] == ["Mass"] and "%" in line]
    assert mass[-3:] == [str(positive), f"{100 * positive / known:.1f}", "%"]
    config = yaml.safe_load((folder / "mine.yaml").read_text())
    own = config["data"]["init_args"]
    assert own["columns"] == {
        "image": "Name", "patient": "Patient ID", "split": "none", "labels": ["Edema", "Mass"], "score": "none",
        "view": "View Position", "sex": "Sex", "age": "none",
    }  # fmt: skip
    assert own["view"] == ["PA"] and own["size"] == 224 and Path(own["boxes"]) == folder / "B.csv"
    assert config["model"]["class_path"].endswith("ClassificationTask")
    assert config["trainer"]["callbacks"][-1] == {"class_path": "lightning_chex.explanations.SubgroupScores"}


def test_the_training_explains_the_images_with_boxes(trained):
    folder, _, _ = trained
    (run,) = folder.glob("runs/lightning_chex/*")
    assert any(name.endswith(".png") for name in written(run / "explanations"))


def test_a_configuration_that_is_there_is_left_as_it_is(trained, monkeypatch, capsys):
    folder, _, _ = trained
    monkeypatch.chdir(folder)
    before = (folder / "mine.yaml").read_text()
    error = the_error(capsys, "inspect", *TABLE, "--write_config=mine.yaml")
    assert "write_config is 'mine.yaml', which exists: give another name" in error
    assert (folder / "mine.yaml").read_text() == before
    error = the_error(capsys, "inspect", "--data=SyntheticDataModule", "--write_config=other.yaml")
    assert "SyntheticDataModule has no proposal, which inspect --write_config needs" in error


def test_explain_prepare_and_evaluate_take_the_same_configuration(trained, monkeypatch, capsys):
    folder, _, checkpoint = trained
    monkeypatch.chdir(folder)
    common = ["--config=small.yaml", *TINY[:-3], "--data.size=64", "--data.batch_size=4"]
    chosen = ["--output_dir=maps", "--split=all", "--targets=[Edema,Mass]"]
    main(["explain", *common, f"--ckpt_path={checkpoint}", *chosen])
    rows = list(csv.DictReader((folder / "maps" / "index.csv").open(encoding="utf-8")))
    seen = [i for i in range(32) if i % 5 != 4]
    expected = {(f"s{i}", "Edema"): str(i // 2 % 2) for i in seen}
    expected |= {(f"s{i}", "Mass"): ("0", "1", "", "")[i // 4 % 4] for i in seen}  # empty where it is not known
    assert {(row["image"], row["target"]): row["truth"] for row in rows} == expected
    main(["prepare", "--config=small.yaml", "--data.size=64", "--output_dir=copy", "--workers=0"])
    arguments = [f"--ckpt_path={checkpoint}", "--output_dir=eva", "--methods=[GradCAM]", "--limit=2", *QUICK]
    main(["evaluate", *common, *arguments, "--data.prepared=copy"])
    assert json.loads((folder / "eva" / "results.json").read_text())["class_names"] == ["Edema", "Mass"]


def test_a_score_becomes_a_regression(tmp_path, monkeypatch, capsys):
    write_table(tmp_path, score=True)
    monkeypatch.chdir(tmp_path)
    main(["inspect", *TABLE, "--write_config=mine.yaml", "--data.size=64"])
    config = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert config["model"]["class_path"].endswith("RegressionTask") and config["data"]["init_args"]["size"] == 64
    assert config["model"]["init_args"]["score_range"] == [0.5, 6.5]
    main(["validate", "--config", small(tmp_path / "mine.yaml"), *TINY[:1], *TINY[3:], "--trainer.logger=false"])
    assert "mean absolute error" in capsys.readouterr().out


def test_a_table_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, capsys):
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in ("inspect", "fit"):
        error = the_error(capsys, command, *TABLE, "--data.columns.image=Datei")
        assert "T.csv has no column 'Datei', which data.columns.image names; it has 'Name', 'Patient ID'" in error
    assert "no table is given: --data.table FILE" in the_error(capsys, "fit", "--data=TableDataModule", "--data.root=.")
