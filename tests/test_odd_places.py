"""Full, read-only, too long, circular and strange places and names: one line each, in every command."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import CONFIGS, TINY, the_error, written
from fakes import write_nih
from PIL import Image
from test_odd_checkpoints import PHANTOM, trained  # noqa: F401  # the latter is a fixture

from lightning_chex.cli.main import main
from lightning_chex.csv_text import csv_rows
from lightning_chex.files import write_whole
from lightning_chex.maps import read_index

pytestmark = pytest.mark.filterwarnings("ignore")

DEEP = "d/" * 2500
WIDE = "n" * 300
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
NIH = ["--config", str(CONFIGS / "nih_classification.yaml"), *TINY, "--model.backbone=test_resnet"]
NIH += ["--trainer.logger=false", "--trainer.callbacks=null"]
BARE = ["--trainer.logger=false", "--trainer.callbacks=null"]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "png")
    return path


def folder_of_images(root: Path, *names: str) -> Path:
    for name in names or ("a.png", "b.png", "c.png"):
        picture(root / name)
    return root


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", *PHANTOM, f"--trainer.default_root_dir={DEEP}"], "(File name too long): give another folder"),
        (["fit", *PHANTOM, f"--trainer.default_root_dir={WIDE}"], "(File name too long): give another folder"),
        (["fit", *PHANTOM, "--trainer.default_root_dir=circle/runs"], "(Too many levels of symbolic links)"),
        (["fit", *PHANTOM, "--trainer.default_root_dir=file/runs"], "(Not a directory): give another folder"),
        (["predict", *PHANTOM, "--trainer.default_root_dir=/proc/runs"], "cannot be written to"),
        (["fit", *PHANTOM, f"--ckpt_path={DEEP}.ckpt"], "it cannot be read (File name too long)"),
        (["validate", *PHANTOM, f"--ckpt_path={WIDE}"], "it cannot be read (File name too long)"),
        (["fit", f"--config={DEEP}.yaml"], "File"),
        (["fit", f"--config={WIDE}.yaml"], "File"),
        (["fit", "--config=circle"], "File"),
        (["fit", *NIH, f"--data.root={DEEP}"], "File name too long"),
        (["fit", *NIH, f"--data.root={WIDE}"], "File name too long"),
        (["fit", *NIH, "--data.root=circle"], "which is a link that leads nowhere"),
        (["fit", *NIH, "--data.root=\udcff"], "is not UTF-8: rename the file or folder"),
        (["inspect", f"--data.root={WIDE}"], "File name too long"),
        (["inspect", "--data=SyntheticDataModule", f"--output_dir={WIDE}"], "File name too long"),
        (["inspect", "--data=SyntheticDataModule", "--output_dir=file"], "(Not a directory): give another folder"),
        (["inspect", "--data=SyntheticDataModule", "--output_dir=/proc/sheet"], "cannot be written to"),
        (["fit", "--config=bomb.yaml"], "aliases"),
        (["evaluate", *PHANTOM, "--methods=[bomb.yaml]", "--ckpt_path={}"], "aliases"),
        (["evaluate", *PHANTOM, f"--output_dir={WIDE}", "--ckpt_path={}"], "File name too long"),
        (["evaluate", *PHANTOM, "--output_dir=circle", "--ckpt_path={}"], "File exists"),
        (
            ["explain", *PHANTOM, f"--output_dir={DEEP}", "--ckpt_path={}", "--attributor=Gradient"],
            "File name too long",
        ),
        (["explain", *PHANTOM, "--output_dir=file", "--ckpt_path={}", "--attributor=Gradient"], "cannot be written to"),
    ],
    ids=lambda value: "-".join(value)[:60].replace("/", "_") if isinstance(value, list) else "",
)
def test_an_odd_place_is_one_line_with_the_remedy_for(place, trained, capsys, arguments, words):  # noqa: F811
    Path("circle").symlink_to("circle")
    Path("file").write_text("")
    Path("bomb.yaml").write_text(BOMB)
    error = the_error(capsys, *(argument.replace("{}", str(trained)) for argument in arguments))
    assert words in error and len(error) < 1200
    assert written(place / "work") <= {"file", "bomb.yaml"}


def test_predict_on_a_full_disk(place, trained, capsys):  # noqa: F811
    Path("runs").mkdir()
    Path("runs/predictions_unfinished.csv").symlink_to("/dev/full")  # where every write finds no room
    error = the_error(capsys, "predict", *PHANTOM, f"--ckpt_path={trained}")
    assert "runs" in error and "No space left on device; make room there, or give another folder" in error


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 KB, taken off at the end; ``mount`` as root alone."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "save", [lambda file: torch.save(torch.rand(10**6), file), lambda file: np.save(file, np.ones(10**6))]
)
def test_whoever_writes_a_full_disk_is_one_error_with_its_number(small_disk, save):
    path = small_disk / "a"
    with pytest.raises(OSError) as raised:
        write_whole(path, save)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path)) and not list(small_disk.iterdir())


def test_fit_on_a_full_disk_keeps_what_was_written(place, small_disk, capsys):
    error = the_error(capsys, "fit", *PHANTOM, f"--trainer.default_root_dir={small_disk}/runs")
    assert str(small_disk) in error and "No space left on device; make room there, or give another folder" in error
    assert "What was written before is kept" in error and "runs/config.yaml" in written(small_disk)


@pytest.mark.parametrize("command", ["fit", "predict", "explain", "evaluate", "inspect"])
def test_a_disk_for_reading_only(place, small_disk, trained, capsys, command):  # noqa: F811
    out = small_disk / "out"
    out.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    where = "output_dir" if command in ("explain", "evaluate", "inspect") else "trainer.default_root_dir"
    checkpoint = [] if command in ("fit", "inspect") else [f"--ckpt_path={trained}"]
    options = ["--data=SyntheticDataModule"] if command == "inspect" else PHANTOM
    options = options + (["--attributor=Gradient"] if command == "explain" else [])
    error = the_error(capsys, command, *options, *checkpoint, f"--{where}={out}")
    assert f"{where}='{out}' cannot be written to (Read-only file system): give another folder" in error


STRANGE = {
    "no UTF-8": (b"\xff\xfe.png", "the names of 1 images have control characters or are not UTF-8: '\\udcff\\udcfe'"),
    "newline": (b"x\nerror: FAKE LINE.png", "control characters or are not UTF-8: 'x\\nerror: FAKE LINE'"),
    "colours": (b"\x1b[31mred.png", "control characters or are not UTF-8: '\\x1b[31mred'"),
}


@pytest.mark.parametrize("command", ["explain", "predict", "inspect"])
@pytest.mark.parametrize("kind", STRANGE)
def test_a_name_no_table_can_hold_is_told_before_any_work(place, trained, capsys, command, kind):  # noqa: F811
    name, words = STRANGE[kind]
    root = folder_of_images(place / "images")
    shutil.copy(root / "a.png", os.fsencode(root) + b"/" + name)
    options = [] if command == "inspect" else [*TINY, "--model.backbone=test_resnet", f"--ckpt_path={trained}"]
    error = the_error(capsys, command, *options, "--data=ImageFolderDataModule", f"--data.root={root}")
    assert words in error and "rename the files" in error and "FAKE LINE" not in error.splitlines()[1:]
    assert not written(place / "work")


def test_a_broken_image_of_a_strange_name_prints_no_line_of_its_own(place, capsys):
    root = folder_of_images(place / "images")
    (root / "x\nerror: FAKE LINE\n.png").write_bytes(b"no image")
    error = the_error(capsys, "inspect", "--data=ImageFolderDataModule", f"--data.root={root}")
    assert "1 of 4 images cannot be read" in error and "x\\nerror: FAKE LINE\\n.png" in error


@pytest.mark.parametrize("command", ["inspect", "predict"])
def test_a_pipe_among_the_images_is_named_and_not_read(place, trained, capsys, command):  # noqa: F811
    root = folder_of_images(place / "images")
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "nothing_to_do_with_it")
    options = [] if command == "inspect" else [*TINY, "--model.backbone=test_resnet", f"--ckpt_path={trained}"]
    error = the_error(capsys, command, *options, "--data=ImageFolderDataModule", f"--data.root={root}")
    assert "1 of 4 images cannot be read" in error and "pipe.png (no regular file)" in error


def test_links_in_a_circle_among_the_images_are_named(place, capsys):
    root = write_nih(place / "nih")
    path = sorted(root.rglob("*.png"))[3]
    path.unlink()
    path.symlink_to(path.name)
    error = the_error(capsys, "fit", *NIH, f"--data.root={root}")
    assert path.name in error and "remove the link" in error


def test_names_like_formulas_stay_names(place, trained):  # noqa: F811
    names = ["=1+1", "@SUM(A1)", "-x", "+y", "plain"]
    root = folder_of_images(place / "images", *(f"{name}.png" for name in names))
    options = [*TINY, "--model.backbone=test_resnet", f"--ckpt_path={trained}", *BARE]
    options += ["--data=ImageFolderDataModule", f"--data.root={root}"]
    main(["predict", *options])
    explain = ["explain", *options, "--attributor=Gradient", "--output_dir=maps"]
    main(explain)
    for path in (Path("runs/predictions.csv"), Path("maps/index.csv")):
        lines = path.read_text().splitlines()[1:]
        assert not [line for line in lines if line.lstrip('"')[0] in "=+-@"]
        assert {row[0] for row in csv_rows(path.read_text())[1:]} == set(names)
    assert {row["image"] for row in read_index(Path("maps"))} == set(names)
    before = {path: path.stat().st_mtime_ns for path in Path("maps/maps").iterdir()}
    main(explain)  # which goes on from what the index says, and finds nothing to do
    assert before == {path: path.stat().st_mtime_ns for path in Path("maps/maps").iterdir()}


def test_long_names_of_images_make_maps_too(place, trained):  # noqa: F811
    root = folder_of_images(place / "images", f"{'n' * 251}.png", f"{'n' * 250}m.png", f"{'肺' * 80}.png")
    options = [*TINY, "--model.backbone=test_resnet", f"--ckpt_path={trained}", *BARE]
    options += ["--data=ImageFolderDataModule", f"--data.root={root}", "--attributor=Gradient", "--output_dir=maps"]
    main(["explain", *options, "--overlays=true"])
    rows = read_index(Path("maps"))
    assert len({row["image"] for row in rows}) == 3 and len({(row["file"], row["row"]) for row in rows}) == len(rows)
