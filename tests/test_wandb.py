"""What an offline W&B run holds, read back from its file, and what it must not hold."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb_reader
from commands import CONFIGS, TINY, written
from fakes import write_nih
from PIL import Image

from lightning_chex.data import PATHOLOGIES, NIHDataModule

PATH = os.pathsep.join([str(CONFIGS.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
SECRET = "folder-of-dr-nobody"
LAST = "ward-of-dr-nobody"  # of the data root's folders
USER, GIT_USER = "user-zq-nobody", "remote-zq-nobody"
HOST = "host-zq-nobody"  # so that the search for it can find nothing else


def give_telling_patient_ids(root: Path) -> None:
    """Name the patients otherwise than the images, which the publisher numbers by patient."""
    lines = (root / "Data_Entry_2017_v2020.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[3] = f"patient-zq{row[3]}"
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([lines[0], *map(",".join, rows)]) + "\n")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of the NIH configuration on fake data, in a process, a home and a repository of its own."""
    folder = tmp_path_factory.mktemp("wandb")
    home, work = folder / "home", folder / "work"
    home.mkdir()
    (folder / "start").mkdir()
    (folder / "start" / "sitecustomize.py").write_text(f"import socket\nsocket.gethostname = lambda: {HOST!r}\n")
    root = write_nih(folder / SECRET / LAST)
    give_telling_patient_ids(root)
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", "-C", str(work)]
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    remote = f"https://{GIT_USER}@git.example.org/{GIT_USER}/x.git"
    subprocess.run([*git, "remote", "add", "origin", remote], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    config = ["--config", str(CONFIGS / "nih_classification.yaml"), "--data.root", str(root)]
    options = [*TINY, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--trainer.default_root_dir=out"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-m", "lightning_chex", "fit", *config, *options],
        cwd=work,
        env={
            **environment,
            **dict.fromkeys(["USER", "LOGNAME"], USER),
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(folder / "start"), PATH]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    file = wandb_reader.run_file(work / "out")
    return SimpleNamespace(
        home=home,
        work=work,
        root=root,
        commit=commit,
        out=done.stdout,
        file=file,
        files=file.parent / "files",
        records=wandb_reader.records(file),
        settings=wandb_reader.config(wandb_reader.records(file)),
        history=wandb_reader.history(wandb_reader.records(file)),
    )


def test_the_run_is_offline_and_knows_its_commit(run):
    (started,) = [record.run for record in run.records if record.HasField("run")][:1]
    assert started.telemetry.feature.offline and run.file.parent.name.startswith("offline-run-")
    assert started.git.commit == run.commit and started.project == "lightning_chex"
    assert str(run.file.parent.relative_to(run.work)) in run.out


def test_the_whole_configuration_is_recorded(run):
    model, data = run.settings["model"], run.settings["data"]
    assert model["class_path"] == "lightning_chex.tasks.ClassificationTask"
    assert model["init_args"]["loss"] == "weighted_bce" and model["init_args"]["lr"] == 5e-4
    assert data["class_path"] == "lightning_chex.data.NIHDataModule"
    assert data["init_args"]["size"] == 64 and data["init_args"]["root"] == "(path)"
    explaining = run.settings["trainer"]["callbacks"][0]["init_args"]
    assert explaining["num_images"] == 32 and explaining["attributor"]["init_args"]["layer"] == "features.denseblock3"
    assert explaining["attributor"]["init_args"]["steps"] == 15  # what the file leaves to defaults is recorded too
    assert run.settings["seed_everything"] == 0


def test_history_holds_localisation_and_scores_of_every_epoch(run):
    rows = [row for row in run.history if "val/iba_iou" in row]
    assert [row["epoch"] for row in rows] == [0, 1]
    for row in rows:
        for key in ("val/loss", "val/auroc", "val/ap", "val/classes_scored", "val/iba_iou_class_mean"):
            assert isinstance(row[key], float | int), key
        assert 0 <= row["val/iba_iou"] <= 1 and 0 < row["val/iba_iou_random"] < row["val/iba_iou_every_pixel"] * 1.5
        for kind in ("val/auroc", "val/iba_iou"):
            names = {key.removeprefix(f"{kind}/") for key in row if key.startswith(f"{kind}/")}
            assert names and names <= set(PATHOLOGIES)
    assert rows[0]["trainer/global_step"] < rows[1]["trainer/global_step"]
    assert len([row for row in run.history if "train/loss" in row]) == 4


def expert_boxes(root: Path) -> list[tuple[str, list[list[float]]]]:
    """Class and boxes of every explained pair, in the order in which the maps are numbered."""
    data = NIHDataModule(str(root), size=64, augment=False)
    offered = data.explained_dataset("validate")
    return [
        (PATHOLOGIES[label], sample["boxes"][sample["box_labels"] == label].tolist())
        for sample in map(offered.__getitem__, range(len(offered)))
        for label in sorted(set(sample["box_labels"].tolist()))
    ]


def test_pictures_carry_the_experts_boxes_and_the_maps_levels(run):
    expected = expert_boxes(run.root)
    logged = [row for row in run.history if "val/iba_maps/filenames" in row]
    assert len(logged) == 2 and len(expected) > 4
    for row in logged:
        maps = {key.removeprefix("val/iba_maps/"): value for key, value in row.items()}
        seen = []
        for name, caption, boxes, masks in zip(
            maps["filenames"], maps["captions"], maps["all_boxes"], maps["all_masks"], strict=True
        ):
            with Image.open(run.files / name) as picture:
                assert picture.size == (64, 64)
            number, target = caption.split(" | ")[:2]
            assert number == str(len(seen))
            found = json.loads((run.files / boxes["expert"]["path"]).read_text())
            assert all(box["domain"] == "pixel" and box["box_caption"] == target for box in found["box_data"])
            positions = [box["position"] for box in found["box_data"]]
            seen.append((target, [[p["minX"], p["minY"], p["maxX"], p["maxY"]] for p in positions]))
            with Image.open(run.files / masks["map"]["path"]) as mask:
                assert mask.size == (64, 64) and mask.getextrema()[1] == 3
        assert seen == expected
    (labels,) = run.settings["_wandb"]["bounding_box/class_labels"].values()
    assert {(int(c), name) for c, name in labels["value"].items()} == {
        (PATHOLOGIES.index(target), target) for target, _ in expected
    }


def test_a_table_has_a_row_for_every_map(run):
    tables = [row["val/iba_table/path"] for row in run.history if "val/iba_table/path" in row]
    assert len(tables) == 2
    for epoch, path in enumerate(tables):
        table = json.loads((run.files / path).read_text())
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        assert [(row["number"], row["target"]) for row in rows] == [
            (number, target) for number, (target, _) in enumerate(expert_boxes(run.root))
        ]
        assert all(row["epoch"] == epoch and row["truth"] == 1 and 0 <= row["iou"] <= 1 for row in rows)


def test_nothing_private_is_in_the_run(run):
    private = [
        SECRET,
        LAST,
        USER,
        GIT_USER,
        "git.example.org",
        HOST,
        str(run.root),
        str(run.home),
        "patient-zq",
        "--data.root",
        "--trainer.",
        "__main__",
    ]
    folder = run.file.parent
    contents = {name: (folder / name).read_bytes() for name in written(folder)}
    contents["run"] = b"".join(wandb_reader.payloads(run.file.read_bytes()))
    assert {record.run.host for record in run.records if record.HasField("run")} == {""}
    assert len(contents) > 10 and b"val/iba_iou" in contents["run"]  # there is something to find
    for name, content in contents.items():
        for word in private:
            assert word.encode() not in content, f"{word} is in {name}"
    data = NIHDataModule(str(run.root), size=64)
    shown = data.explained_dataset("validate")
    for image_id in {shown[i]["image_id"] for i in range(len(shown))}:  # a publisher's patient number is part of it
        for name, content in contents.items():
            assert image_id.encode() not in content, f"{image_id} is in {name}"
    assert all(name.startswith("patient-zq") for name in data.dataset("train").patient_ids)
    # not even where the run itself lies
    assert not [record for record in run.records if str(run.work) in str(record)]


def test_everything_written_lies_under_the_root(run):
    kept = {name.split("/")[0] for name in written(run.work)} - {".git"}
    assert kept == {"out"}
    # matplotlib lists the machine's fonts once for all programs of a user
    assert {name for name in written(run.home) if "matplotlib" not in name} == set()


def test_the_reader_sees_a_damaged_file(run, tmp_path):
    data = bytearray(run.file.read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        list(wandb_reader.payloads(bytes(data)))
    with pytest.raises(ValueError, match="no W&B run"):
        list(wandb_reader.payloads(b"something else"))
