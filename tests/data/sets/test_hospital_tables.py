"""Tables as hospitals and companies export them: roles, open points, the configuration written, and training."""

from dataclasses import replace

import pandas as pd
import pytest
import yaml
from commands import TINY, the_error
from hospital_tables import CASES, IMAGES, binary, names, patients

from lightning_chex.cli.main import main
from lightning_chex.data import DataError, TableDataModule
from lightning_chex.data.table.columns import NONE

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", CASES)
def test_roles_and_open_points_are_recognised_by_content(tmp_path, name):
    case = CASES[name]
    data = TableDataModule(str(tmp_path / "xrays"), str(case.write(tmp_path)), size=32)
    reading = data.reading
    found = {role: own for role, own in vars(reading.columns).items() if own not in (None, NONE)}
    assert found == case.roles
    assert tuple(point.option for point in reading.open) == case.open
    rows = len(reading.table)
    assert f"{rows:,} of {rows:,} values match files" in reading.recognised.evidence["image"]
    if case.box is not None:
        assert (reading.boxes.box, reading.boxes.form) == case.box


@pytest.mark.parametrize("name", CASES)
def test_inspect_writes_a_configuration_and_fit_asks_for_all_that_is_open(tmp_path, monkeypatch, capsys, name):
    case = CASES[name]
    table = case.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    own = ["--data=TableDataModule", f"--data.table={table.name}", "--data.root=xrays", "--data.size=32"]
    main(["inspect", *own, "--write_config=mine.yaml"])
    said = capsys.readouterr().out
    assert (tmp_path / "inspect" / "TableDataModule.png").is_file()
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert text.count("# UNDECIDED") == len(case.open) and ("to decide" in said) == bool(case.open)
    settings = yaml.safe_load(text)["data"]["init_args"]
    assert settings["columns"]["image"] == case.roles["image"]
    if case.open:
        data = TableDataModule("xrays", table.name, size=32)
        with pytest.raises(DataError) as caught:
            data.setup("fit")
        error = str(caught.value)
        assert all(f"--data.{option} " in error and f"--data.{option} " in said for option in case.open)
    for option, answer in case.answers.items():
        parent, _, key = option.rpartition(".")
        (settings[parent] if parent else settings)[key] = answer
    config = yaml.safe_load(text)
    config["data"]["init_args"] = settings
    (tmp_path / "answered.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    main(["inspect", "--config=answered.yaml", "--output_dir=again"])
    said = capsys.readouterr().out
    assert "to decide" not in said and f"{IMAGES} images" in said
    assert all(any(line.split()[:1] == [name] for line in said.splitlines()) for name in case.classes)


def test_fit_names_all_open_points_at_once_and_trains_once_they_are_answered(tmp_path, monkeypatch, capsys):
    case = CASES["Excel, the first sheet is a read-me, several points are open"]
    case.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    own = ["--data=TableDataModule", "--data.table=T.xlsx", "--data.root=xrays", "--data.size=32"]
    main(["inspect", *own, "--write_config=mine.yaml"])
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8").replace("densenet121", "test_resnet")
    text = text.replace("{layer: features.denseblock3", "{layer: layer2, steps: 2")
    (tmp_path / "mine.yaml").write_text(text.replace("features.denseblock3", "layer2"), encoding="utf-8")
    error = the_error(capsys, "fit", "--config=mine.yaml", *TINY)
    assert "--data.columns.patient 'Case' or 'none'" in error and "--data.columns.labels 'Group' or 'Device'" in error
    assert "--data.missing negative or ignore" in error
    answers = ["--data.columns.patient=Case", "--data.columns.labels=Group", "--data.missing=negative"]
    main(["fit", "--config=mine.yaml", *TINY, *answers])
    assert list(tmp_path.glob("runs/lightning_chex/*/checkpoints/last.ckpt"))


def plain_table() -> pd.DataFrame:
    return pd.DataFrame({"Datei": names(), "PatID": patients(), "Erguss": binary(2), "Masse": binary(3)})


FAULTS = {
    "no image column": (plain_table().drop(columns="Datei"), "--data.columns.image NAME"),
    "other images": (plain_table().assign(Datei=[f"z{i}.png" for i in range(IMAGES)]), "48 of the 48 images"),
    "an empty name": (plain_table().assign(Datei=["", *names()[1:]]), "row 2, column 'Datei': the cell is empty"),
    "out of the root": (
        plain_table().assign(Datei=["../../x.png", *names()[1:]]), "'../../x.png' leads out of the data root"),
    "a row twice": (pd.concat([plain_table(), plain_table()[:1]]), "row 50, column 'Datei': image 'img_000' is in"),
    "no labels": (plain_table()[["Datei", "PatID"]], "no column that looks like labels"),
    "a wrong label": (
        plain_table().assign(Erguss=["banana", *binary(2)[1:]]), "row 2, column 'Erguss': 'banana' is no label"),
    "labels of two kinds": (
        plain_table().assign(finding="Masse"), "--data.columns.labels '[Erguss, Masse]' or 'finding'"),
    "one patient in two splits": (plain_table().assign(split=["train", "test"] * 24), "patient 'P1000' is in test"),
    "boxes of any form": (plain_table().assign(bbox="[3, 4, 20, 30]"), "box format of 'bbox' is ambiguous"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_table_that_can_be_read_is_shown_with_what_to_correct(tmp_path, name):
    table, point = FAULTS[name]
    path = replace(CASES["Chinese"], rows=table).write(tmp_path)
    data = TableDataModule(str(tmp_path / "xrays"), str(path), size=32)
    found = data.overview(num_samples=2)
    assert any(point in own for own in found["to_decide"]) and len(found["samples"]) == 2
    config = data.proposal()[1]
    assert yaml.safe_load(config)["data"]["init_args"]["table"] == str(path)
    with pytest.raises(DataError) as caught:
        data.setup("fit")
    assert point in str(caught.value)


def test_boxes_outside_of_their_images_are_told_and_labels_still_counted(tmp_path):
    table = plain_table().drop(columns="Masse").assign(x=1, y=1, w=5, h=500)
    path = replace(CASES["Chinese"], rows=table).write(tmp_path)
    found = TableDataModule(str(tmp_path / "xrays"), str(path), size=32).overview(num_samples=2)
    assert "lies outside of its 80 x 100 image" in found["to_decide"][0]
    assert [part["images"] for part in found["parts"]] == [32, 8, 8] and found["class_names"] == ["Erguss"]
