"""``python -m lightning_chex inspect``: what a data root holds, in numbers and pictures."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from commands import CONFIGS, written
from fakes import write_cohen, write_nih
from PIL import Image

import lightning_chex.data.overview
from lightning_chex.cli.main import main
from lightning_chex.data import PATHOLOGIES, CohenDataModule, NIHDataModule
from lightning_chex.data.images import known_files
from lightning_chex.data.images.images import examine, read_grey
from lightning_chex.report import overview_text

PHANTOM = ["--data.num_train=12", "--data.num_val=8", "--data.num_test=6", "--data.size=64"]

pytestmark = pytest.mark.filterwarnings("ignore")


def inspected(capsys, *arguments: str) -> str:
    """Run, and return what is said on standard output."""
    capsys.readouterr()
    main(["inspect", *arguments])
    return capsys.readouterr().out


def row(said: str, name: str) -> list[str]:
    """Numbers of the first line that begins with a name, without their thousands' commas."""
    (line, *_) = [line for line in said.splitlines() if line.strip().startswith(name)]
    return re.findall(r"[\d.]+", line.strip().removeprefix(name).replace(",", ""))


def test_all_of_a_copy_of_nih_is_counted_and_drawn(place, capsys):
    root = write_nih(place / "nih")
    before = written(root)
    said = inspected(capsys, "--data.root", str(root), "--model.backbone=no_such_network")
    assert "NIHDataModule: 47 images of 46 patients" in said
    assert [line for line in said.splitlines() if line.strip()][1].split() == ["train", "val", "test", "tuning", "all"]
    assert row(said, "images") == ["20", "8", "10", "9", "47"]
    assert row(said, "patients") == ["20", "8", "10", "8", "46"]
    assert row(said, "boxes") == ["0", "0", "8", "9", "17"]
    for name in PATHOLOGIES:  # three training patients, of which one validates; a test image; one or two tuning images
        numbers = [float(number) for number in row(said, name)]
        tuning = 2 if name == PATHOLOGIES[1] else 1
        assert numbers[::2] == [2, 1, 1, tuning, 4 + tuning]
        assert numbers[1::2] == pytest.approx(
            [100 * count / of for count, of in zip(numbers[::2], (20, 8, 10, 9, 47), strict=True)], abs=0.051
        )
    assert "64 x 64 (47)" in said and re.search(r"missing files +none", said)
    assert written(root) == before and written(place / "work") == {"inspect/NIHDataModule.png"}
    assert not written(place / "home")
    assert min(Image.open(place / "work/inspect/NIHDataModule.png").size) > 500


def test_scores_are_counted(place, capsys):
    root = write_cohen(place / "cohen")
    said = inspected(capsys, "--data.root", str(root), "--output_dir", "seen")
    rows = list(csv.DictReader((root / "data/public-annotations.csv").open(encoding="utf-8-sig")))
    scores = [int(cells["S-Global"]) for cells in rows]
    assert row(said, "images")[-1] == "30"
    for low, high in [(0, 2), (3, 5), (6, 8), (9, 11), (12, 14), (15, 18)]:
        assert row(said, f"score {low} to {high}")[-2] == str(sum(low <= score <= high for score in scores))
    assert float(row(said, "mean score")[-1]) == pytest.approx(sum(scores) / 30, abs=0.006)
    assert "48 x 64 (15)" in said and "64 x 48 (15)" in said and "boxes" not in said
    assert written(place / "work") == {"seen/CohenDataModule.png"}


@pytest.mark.parametrize("target", ["pathologies", "severity", "detectors"])
def test_the_phantom_needs_no_root(place, capsys, target):
    said = inspected(capsys, *PHANTOM, f"--data.target={target}")
    assert "SyntheticDataModule: 26 images of 9 patients" in said and row(said, "images") == ["12", "8", "6", "26"]
    assert "image sizes" not in said and ("severity_0_1" in said) == (target == "detectors")
    assert written(place / "work") == {"inspect/SyntheticDataModule.png"}


@pytest.mark.parametrize("form", ["configuration", "class"])
def test_the_data_module_may_be_named(place, capsys, form):
    root = str(write_nih(place / "nih"))
    config = {
        "configuration": ["--config", str(CONFIGS / "nih_classification.yaml")],
        "class": ["--data", "NIHDataModule"],
    }
    said = inspected(capsys, *config[form], "--data.root", root, "--data.classes=[Mass,Hernia]")
    assert row(said, "Mass")[0] == "2" and row(said, "Hernia") == ["0", "0.0"] * 5 and "Nodule" not in said
    assert written(place / "work") == {"inspect/NIHDataModule.png"}


def test_what_is_missing_is_counted_not_refused(place, capsys):
    root = write_nih(place / "nih")
    lines = (root / "test_list.txt").read_text().split("\n")
    for name in lines:
        (root / "images_001/images" / name).unlink()
    said = inspected(capsys, "--data.root", str(root))
    assert row(said, "images") == ["20", "8", "0", "0", "28"]
    assert "19 of 47: " in said and "left out" in said
    assert row(said, "boxes") == ["0", "0", "0", "0", "0"]
    assert Image.open(place / "work/inspect/NIHDataModule.png").size[0] > 500


def test_notes_of_the_data_module_are_on_the_page(place, capsys):
    root = write_nih(place / "nih")
    lines = (root / "train_val_list.txt").read_text().split("\n")
    (root / "train_val_list.txt").write_text("\n".join(lines[2:]))
    assert re.search(r"note +2 images of the label table are in no list", inspected(capsys, "--data.root", str(root)))


def test_what_the_raters_agree_on_is_shown_where_a_module_tells(place, capsys, monkeypatch):
    figures = {"images": 30.0, "zone_agreement": 0.63, "zone_agreement/A": 0.5, "zone_agreement/B": 0.75}
    monkeypatch.setattr(CohenDataModule, "rater_disagreement", lambda self: figures, raising=False)
    said = inspected(capsys, "--data.root", str(write_cohen(place / "cohen")))
    assert row(said, "zone agreement") == ["0.630", "0.500", "0.750"]
    assert re.search(r"\n +all +A +B\n", said)


def test_only_samples_are_read_and_of_many_files_only_some_are_opened(place, monkeypatch):
    data = NIHDataModule(str(write_nih(place / "nih")), size=32)
    read, opened = [], []

    def note(path):
        read.append(path)
        return read_grey(path)

    data.read = note
    real = lightning_chex.data.overview.image_size
    monkeypatch.setattr(lightning_chex.data.overview, "image_size", lambda path: opened.append(path) or real(path))
    monkeypatch.setattr(lightning_chex.data.overview, "SIZE_LIMIT", 10)
    found = data.overview(num_samples=3)
    assert len(read) == len(found["samples"]) == 3 and len(opened) == 10
    assert (
        found["sizes"]["counted"] == 10
        and found["sizes"]["files"] == 47
        and found["sizes"]["common"] == [((64, 64), 10)]
    )
    assert all(sample["boxes"] and set(sample["box_names"]) <= set(PATHOLOGIES) for sample in found["samples"])
    assert "64 x 64 (10); 10 of 47 files were looked at" in overview_text(found)
    assert data.allow_missing is False and not data._checked  # looking changes nothing


def the_error(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", *arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_is_no_data_set_is_named(place, capsys):
    (place / "photos").mkdir()
    (place / "photos" / "cat.txt").touch()
    error = the_error(capsys, "--data.root", str(place / "photos"))
    assert all(part in error for part in ("no data set known here", "cat.txt", "Data_Entry_2017.csv", "--data"))
    assert "does not exist" in the_error(capsys, f"--data.root={place / 'nowhere'}")
    assert not written(place / "work")


def test_a_broken_table_or_an_output_folder_that_cannot_be_is_named(place, capsys):
    root = write_nih(place / "nih")
    (place / "work" / "file").touch()
    assert "output_dir='file/x'" in the_error(capsys, "--data.root", str(root), "--output_dir=file/x")
    broken = shutil.copytree(root, place / "broken")
    (broken / "BBox_List_2017.csv").write_text("hello")
    assert "should begin with" in the_error(capsys, "--data.root", str(broken))
    assert written(place / "work") == {"file"}


@pytest.mark.real_data
def test_the_real_prevalences_come_out(place, capsys, chex_data):
    root = chex_data / "nih_chestxray8"
    said = inspected(capsys, "--data.root", str(root), "--data.classes=chestxray14")
    rows = list(csv.DictReader((root / "Data_Entry_2017_v2020.csv").open()))
    assert row(said, "images")[-1] == str(len(rows)) == "2043" and row(said, "boxes")[-1] == "618"
    assert "256 x 256 (2,043)\n" in said and re.search(r"missing files +none", said)
    for name in [*PATHOLOGIES, "Hernia", "Pleural_Thickening"]:
        count = sum(name in cells["Finding Labels"].split("|") for cells in rows)
        assert row(said, name)[-2:] == [str(count), f"{100 * count / 2043:.1f}"]
    assert Path("inspect/NIHDataModule.png").is_file()


@pytest.mark.real_data
def test_the_real_scores_come_out(place, capsys, chex_data):
    said = inspected(capsys, "--data.root", str(chex_data / "brixia_cohen"))
    assert row(said, "images")[-1] == "120" and Path("inspect/CohenDataModule.png").is_file()


def test_inspect_uses_and_writes_the_record_of_checked_files(place, capsys, monkeypatch):
    monkeypatch.setattr(known_files, "WORTHWHILE", 1)
    opened = []

    def spy(paths, decode):
        opened.append(len(paths))
        return examine(paths, decode)

    monkeypatch.setattr(known_files, "examine", spy)
    root = write_nih(place / "nih")
    for _ in range(2):
        inspected(capsys, "--data.root", str(root), f"--trainer.default_root_dir={place / 'runs'}")
    assert opened == [47, 0]
    assert [path.name for path in (place / "runs").iterdir()] == [known_files.RECORD]


def test_inspect_of_few_files_leaves_no_folder_of_runs(place, capsys):
    inspected(capsys, "--data.root", str(write_nih(place / "nih")), f"--trainer.default_root_dir={place / 'runs'}")
    assert not (place / "runs").exists()
