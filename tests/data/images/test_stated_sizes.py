"""Numbers in a file that would decide how much memory is taken are checked before they do."""

import json
import os
import resource
import sys

import numpy as np
import pandas as pd
import pytest
from commands import the_error
from PIL import Image

from lightning_chex.cli.main import main
from lightning_chex.data import DataError
from lightning_chex.data.table.boxes import BoxColumns, read_boxes
from lightning_chex.data.table.masks import decode_runs, marked_pixels
from lightning_chex.data.table.reading import read_text_table, table_path

pytestmark = pytest.mark.filterwarnings("ignore")

LARGEST = "9223372036854775807"
RUNS = [f"{LARGEST} 1", f"1 {LARGEST}", f"{LARGEST} {LARGEST}", "1 65", "99999999999999999999 1"]


def coco_text(count):
    """One count in COCO's compressed text, groups of five bits with a sign in the last."""
    letters = []
    while True:
        group, count = count & 31, count >> 5
        last = count == 0 and not group & 16
        letters.append(chr(48 + group + (0 if last else 32)))
        if last:
            return "".join(letters)


@pytest.mark.parametrize("form", ["siim", "pixels"])
@pytest.mark.parametrize("text", RUNS)
def test_runs_that_overflow_or_leave_the_image_are_refused(text, form):
    for read in (decode_runs, marked_pixels):
        with pytest.raises(ValueError, match="one of its numbers is|its runs are not those of 8 x 8 pixels"):
            read(text, 8, 8, form)


@pytest.mark.parametrize("count", [2**63 - 1, 2**63, 2**64, 2**200])
def test_compressed_runs_that_overflow_are_refused(count):
    for read in (decode_runs, marked_pixels):
        with pytest.raises(ValueError, match="one of its numbers is|no compressed text of COCO"):
            read(coco_text(count) + coco_text(1), 8, 8, "coco")


@pytest.mark.parametrize("size", [(10**6, 10**6), (0, 8), (8, -8), (2**14 + 1, 2**14)])
@pytest.mark.parametrize("text", ["1 2", ""])
def test_a_size_beyond_every_detector_is_refused_before_decoding(size, text):
    with pytest.raises(ValueError, match=f"its size is {size[1]} x {size[0]}; 1 to 268,435,456 pixels can be read"):
        decode_runs(text, *size, "siim")


def test_runs_within_the_image_are_read_as_before():
    # by hand: pixels 2 and 3, counted from 1 down the columns of a 2 x 2 image
    assert decode_runs("2 2", 2, 2, "pixels").astype(int).tolist() == [[0, 1], [1, 0]]
    assert marked_pixels(coco_text(1) + coco_text(2) + coco_text(1), 2, 2, "coco") == 2


@pytest.fixture
def masked(tmp_path):
    """Twelve images with a table of labels, and a place for masks."""
    lines = ["image,patient,Nodule"]
    for number in range(12):
        Image.fromarray(np.full((64, 64), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,p{number},{number % 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


MASKS = {
    "size": ({"size": [10**6, 10**6], "counts": coco_text(10**12)}, "its size is 1000000 x 1000000"),
    "overflow": ({"size": [64, 64], "counts": coco_text(2**63 - 1)}, "one of its numbers is 9223372036854775807"),
    "text": ({"size": ["a", 64], "counts": "0"}, "does not hold"),
    "list": ([1], "does not hold"),
}


@pytest.mark.parametrize("command", ["inspect", "fit"])
@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_impossible_sizes_are_one_error_before_any_work(masked, capsys, monkeypatch, kind, command):
    content, words = MASKS[kind]
    monkeypatch.chdir(masked)
    (masked / "masks.json").write_text(json.dumps({"1": {"Nodule": content}}))
    arguments = [
        command, "--data=TableDataModule", f"--data.root={masked}", "--data.table=table.csv",
        "--data.masks.runs=masks.json",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if command == "inspect":  # which shows what it can, and lists what has to be corrected
        main(arguments)
        told = capsys.readouterr().out
    else:
        told = the_error(capsys, *arguments, "--trainer.logger=false", "--trainer.callbacks=null")
    assert words in told and "masks.json" in told
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**20 * (1 if sys.platform == "linux" else 1024)  # less than a GiB


def boxes_with(**columns):
    table = pd.DataFrame({"image": ["a"], "x": ["1"], "y": ["1"], "w": ["2"], "h": ["2"]}, index=[2])
    return table.assign(**columns)


def test_frames_of_boxes_are_bounded(tmp_path):
    box = {"box": ["x", "y", "w", "h"], "form": "xywh", "unit": "pixels"}
    with pytest.raises(DataError, match="data.box_columns.original is .1000000, 1000000.: give width and height"):
        read_boxes(boxes_with(), tmp_path, BoxColumns(**box, original=[10**6, 10**6]), ["Nodule"])
    frame = boxes_with(wide=["1000000"], high=["1000000"])
    with pytest.raises(DataError, match="row 2, column 'wide': '1000000' is the width of no image: too large"):
        read_boxes(frame, tmp_path, BoxColumns(**box, frame=["wide", "high"]), ["Nodule"])
    usual = frame.assign(wide="1024", high="1024")
    read = read_boxes(usual, tmp_path, BoxColumns(**box, frame=["wide", "high"]), ["Nodule"])
    assert read["width"].tolist() == [1024.0]


def test_a_pipe_in_place_of_a_table_is_called_one(tmp_path):
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(DataError, match="table.csv is a pipe or a device: give a regular file"):
        table_path("table.csv", tmp_path)
    (tmp_path / "link.csv").symlink_to(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="link.csv is a link to a file that does not exist"):
        table_path("link.csv", tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="folder.csv is a folder: give a file in it"):
        table_path("folder.csv", tmp_path)
    with pytest.raises(DataError, match="which does not exist"):
        table_path("none.csv", tmp_path)


def test_a_table_of_very_many_columns_is_refused_by_their_number(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{k}" for k in range(5_000)) + "\n" + ",".join("1" * 5_000) + "\n")
    with pytest.raises(DataError, match="it has 5,000 columns, more than 2,000: keep those that are needed"):
        read_text_table(path)
    path.write_text(",".join(f"column{k}" for k in range(20_000)) + "\n" + ",".join("1" * 20_000) + "\n")
    with pytest.raises(DataError, match="its first line, which should name the columns, is longer than 65,536 bytes"):
        read_text_table(path)
