import csv
import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fakes import write_cohen, write_nih
from PIL import Image

from lightning_chex.data import CohenDataModule, DataError, NIHDataModule, SyntheticDataModule
from lightning_chex.data.images.images import read_grey
from lightning_chex.data.images.prepared import preparing
from lightning_chex.data.images.prepared.preparing import prepare_copy
from lightning_chex.data.images.prepared.reading import open_prepared, unfinished_name

SIZE = 50  # no power of two, so that a box that is scaled twice would be rounded twice
MODULES = {"nih": NIHDataModule, "cohen": CohenDataModule}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two data sets and their copies."""
    folder = tmp_path_factory.mktemp("made")
    write_nih(folder / "nih")
    write_cohen(folder / "cohen")
    for name, module in MODULES.items():
        module(root=str(folder / name), size=SIZE).prepare(folder / f"{name}_copy", workers=0)
    return folder


@pytest.fixture
def few(tmp_path):
    """Image id to path of 40 noisy images, upright and lying in turn."""
    rng = np.random.default_rng(0)
    sources = {}
    for i in range(40):
        path = tmp_path / "few" / f"image{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 24) if i % 2 else (24, 30), dtype=np.uint8)).save(path)
        sources[path.stem] = str(path)
    return sources


class Reads:
    """A reader that counts, and may be slow or break."""

    def __init__(self, seconds: float = 0.0, breaks_at: int = -1, error: type[BaseException] = KeyboardInterrupt):
        self.seconds, self.breaks_at, self.error, self.count = seconds, breaks_at, error, 0

    def __call__(self, path):
        if self.count == self.breaks_at:
            raise self.error
        self.count += 1
        time.sleep(self.seconds)
        return read_grey(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        same = torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        assert same, f"{key} of {one['image_id']} differs"


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("augment", [False, True])
def test_samples_are_the_same_to_the_last_bit(made, name, augment):
    plain, copied = (
        MODULES[name](root=str(made / name), size=SIZE, augment=augment, prepared=prepared)
        for prepared in (None, str(made / f"{name}_copy"))
    )
    for data in (plain, copied):
        data.setup()
    boxes = 0
    for one, other in [
        *((plain.dataset(split), copied.dataset(split)) for split in ("train", "val", "test")),
        *((plain.explained_dataset(stage), copied.explained_dataset(stage)) for stage in ("validate", "test")),
    ]:
        samples = []
        for dataset in (one, other):
            torch.manual_seed(7)
            samples.append([dataset[i] for i in range(len(dataset))])
        for before, after in zip(*samples, strict=True):
            assert_equal(before, after)
            boxes += len(before["boxes"])
    assert boxes or name == "cohen"


def test_boxes_that_suit_no_pixel_are_the_same_to_the_last_bit(tmp_path):
    root = write_nih(tmp_path / "nih", size=1024 // 8)
    table = root / "BBox_List_2017.csv"
    header, *rows = table.read_text().splitlines()
    rng = np.random.default_rng(0)
    cut = [row.split(",")[:2] + [f"{value:.6f}" for value in rng.uniform(20, 450, 4)] for row in rows]
    table.write_text("\n".join([header, *map(",".join, cut)]))
    plain = NIHDataModule(root=str(root), size=SIZE)
    plain.prepare(tmp_path / "copy", workers=0)
    copied = NIHDataModule(root=str(root), size=SIZE, prepared=str(tmp_path / "copy"))
    one, other = plain.explained_dataset("test"), copied.explained_dataset("test")
    for i in range(len(one)):
        assert torch.equal(one[i]["boxes"], other[i]["boxes"])


def test_the_files_say_what_they_hold(few, tmp_path):
    copy = prepare_copy(few, read_grey, tmp_path / "copy", 12, workers=0)
    assert sorted(contents(copy)) == ["images.npy", "index.csv", "manifest.json"]
    images = np.load(copy / "images.npy", mmap_mode="r")
    with open(copy / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    manifest = json.loads((copy / "manifest.json").read_text())
    assert images.shape == (40, 12, 12) and images.dtype == np.uint8
    assert [row["image_id"] for row in rows] == sorted(few)
    for image, row in zip(images, rows, strict=True):
        path = few[row["image_id"]]
        source = np.asarray(Image.open(path))
        height, width = (12, 10) if source.shape == (30, 24) else (10, 12)
        expected = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
        assert np.array_equal(image[:height, :width], expected)
        assert not image[height:].any() and not image[:, width:].any()
        assert [int(row[key]) for key in ("height", "width")] == [height, width]
        assert (int(row["source_height"]), int(row["source_width"])) == source.shape
        assert int(row["source_bytes"]) == os.path.getsize(path)
        assert row["source_sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert row["sha256"] == hashlib.sha256(image.tobytes()).hexdigest()
    assert manifest["index_sha256"] == hashlib.sha256((copy / "index.csv").read_bytes()).hexdigest()
    assert (manifest["images"], manifest["size"], manifest["unreadable"]) == (40, 12, 0)
    assert str(tmp_path) not in (copy / "manifest.json").read_text() + (copy / "index.csv").read_text()


def test_several_workers_make_the_same_copy(few, tmp_path):
    copies = [prepare_copy(few, read_grey, tmp_path / f"copy{n}", 12, workers=n) for n in (0, 2)]
    assert contents(copies[0]) == contents(copies[1])


def test_the_reader_works_in_workers_and_travels_light(made):
    data = NIHDataModule(root=str(made / "nih"), size=SIZE, prepared=str(made / "nih_copy"), num_workers=2)
    data.setup("test")
    alone = NIHDataModule(root=str(made / "nih"), size=SIZE)
    alone.setup("test")
    dataset = data.dataset("test")
    assert_equal(dataset[0], alone.dataset("test")[0])  # the map is open now
    assert len(pickle.dumps(data.read)) < (made / "nih_copy" / "images.npy").stat().st_size / 2
    for one, other in zip(data.test_dataloader(), alone.test_dataloader(), strict=True):
        assert torch.equal(one["image"], other["image"])


def test_a_whole_copy_is_left_as_it_is(few, tmp_path, capsys):
    copy = prepare_copy(few, read_grey, tmp_path / "copy", 12, workers=0)
    before, reads = contents(copy), Reads()
    times = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    prepare_copy(few, reads, copy, 12, workers=0)
    assert "whole already" in capsys.readouterr().out
    assert reads.count <= 8  # the spot checks
    assert contents(copy) == before and {path: path.stat().st_mtime_ns for path in copy.iterdir()} == times


# interruptions


def test_an_interrupted_call_goes_on_where_it_was(few, tmp_path):
    copy = tmp_path / "copy"
    with pytest.raises(DataError, match="interrupted.*same command again"):
        prepare_copy(few, Reads(breaks_at=35), copy, 12, workers=0)
    assert not copy.exists()
    with pytest.raises(DataError, match="unfinished"):
        open_prepared(copy, 12, few, read_grey)
    with pytest.raises(DataError, match="unfinished"):
        open_prepared(unfinished_name(copy), 12, few, read_grey)
    reads = Reads()
    prepare_copy(few, reads, copy, 12, workers=0)
    assert reads.count == 40 - 32  # two chunks of 16 were on record
    assert contents(copy) == contents(prepare_copy(few, read_grey, tmp_path / "at_once", 12, workers=0))
    assert not unfinished_name(copy).exists()


def test_what_is_on_record_but_not_on_disk_is_made_again(few, tmp_path):
    copy = tmp_path / "copy"
    with pytest.raises(DataError):
        prepare_copy(few, Reads(breaks_at=35), copy, 12, workers=0)
    work = unfinished_name(copy)
    with open(work / "images.npy", "r+b") as file:  # a page that a power cut has lost
        file.seek(-40 * 144, os.SEEK_END)
        file.write(bytes(144))
    with open(work / "progress.csv", "r+b") as file:  # a line cut in the middle
        file.truncate((work / "progress.csv").stat().st_size - 20)
    reads = Reads()
    prepare_copy(few, reads, copy, 12, workers=0)
    assert reads.count == 40 - 32 + 2
    assert contents(copy) == contents(prepare_copy(few, read_grey, tmp_path / "at_once", 12, workers=0))


def prepare_interruptibly(*arguments):
    # a test run in the background, as under nohup, ignores the signal, and so would its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    prepare_copy(*arguments)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_what_the_next_one_goes_on_with(few, tmp_path, how):
    copy = tmp_path / "copy"
    call = (few, Reads(seconds=0.02), copy, 12, 1)
    process = multiprocessing.get_context("fork").Process(target=prepare_interruptibly, args=call)
    process.start()
    log = unfinished_name(copy) / "progress.csv"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (log.exists() and log.stat().st_size):
        time.sleep(0.005)
    os.kill(process.pid, how)
    process.join(30)
    assert process.exitcode not in (0, None)
    assert not copy.exists() and log.stat().st_size
    reads = Reads()
    prepare_copy(few, reads, copy, 12, workers=0)  # at once, while workers of the first may still be there
    assert 0 < reads.count < 40
    assert contents(copy) == contents(prepare_copy(few, read_grey, tmp_path / "at_once", 12, workers=0))


def test_a_call_that_died_before_the_last_step_is_concluded(few, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(DataError, match="interrupted"):
            prepare_copy(few, read_grey, copy, 12, workers=0)
    reads = Reads()
    prepare_copy(few, reads, copy, 12, workers=0)
    assert reads.count == 0 and (copy / "manifest.json").is_file()


def test_two_calls_do_not_meet(few, tmp_path):
    copy = tmp_path / "copy"
    call = (few, Reads(seconds=0.05), copy, 12, 0)
    process = multiprocessing.get_context("fork").Process(target=prepare_copy, args=call)
    process.start()
    plan = unfinished_name(copy) / "plan.json"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not plan.exists():
        time.sleep(0.005)
    with pytest.raises(DataError, match="another process .* is at work"):
        prepare_copy(few, read_grey, copy, 12, workers=0)
    process.kill()
    process.join(30)


# a disk that takes no more


class FullDisk:
    """A file that takes ``room`` images and then no more."""

    def __init__(self, file, room: int):
        self.file, self.room = file, room

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        return self.file.write(data)

    def seek(self, *where):
        return self.file.seek(*where)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_a_disk_without_room_is_told_at_once(few, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    copy, reads = tmp_path / "copy", Reads()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(DataError, match="No space left on device; 40 images of 12 pixels need 0.00 GB"):
            prepare_copy(few, reads, copy, 12, workers=0)
    assert reads.count == 0 and not copy.exists()
    assert not (unfinished_name(copy) / "images.npy").exists()  # what room there was is free again
    prepare_copy(few, read_grey, copy, 12, workers=0)


def test_a_disk_that_fills_up_on_the_way_costs_nothing_that_is_done(few, tmp_path, monkeypatch):
    def limited(path, mode="r", **options):
        file = open(path, mode, **options)  # noqa: SIM115  # closed by whoever has it opened
        return FullDisk(file, room=20) if mode == "r+b" and "buffering" in options else file

    copy, reads = tmp_path / "copy", Reads()
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "open", limited, raising=False)
        with pytest.raises(DataError, match="No space left.*same command again") as error:
            prepare_copy(few, read_grey, copy, 12, workers=0)
    assert "\n" not in str(error.value) and not copy.exists()
    prepare_copy(few, reads, copy, 12, workers=0)
    assert reads.count == 20
    assert contents(copy) == contents(prepare_copy(few, read_grey, tmp_path / "at_once", 12, workers=0))


# places where no copy can be


def is_a_file(place: Path, few: dict) -> Path:
    (place / "file").write_text("mine")
    return place / "file"


def below_a_file(place: Path, few: dict) -> Path:
    return is_a_file(place, few) / "copy"


def among_the_images(place: Path, few: dict) -> Path:
    return Path(next(iter(few.values()))).parent


def below_the_images(place: Path, few: dict) -> Path:
    return among_the_images(place, few) / "deep" / "copy"


def holds_other_files(place: Path, few: dict) -> Path:
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("mine")
    return place / "mine"


def holds_another_size(place: Path, few: dict) -> Path:
    return prepare_copy(few, read_grey, place / "copy", 8, workers=0)


def holds_another_data_set(place: Path, few: dict) -> Path:
    return prepare_copy({f"other{name}": path for name, path in few.items()}, read_grey, place / "copy", 12, workers=0)


def holds_the_beginning_of_another(place: Path, few: dict) -> Path:
    with pytest.raises(DataError):
        prepare_copy(few, Reads(breaks_at=20), place / "copy", 8, workers=0)
    return place / "copy"


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (is_a_file, "is a file"),
        (below_a_file, "Not a directory"),
        (among_the_images, "lies in the image folder"),
        (below_the_images, "lies in the image folder"),
        (holds_other_files, "holds other files"),
        (holds_another_size, "images of 8 pixels, but data.size is 12"),
        (holds_another_data_set, "40 of the 40 images are not in the prepared copy"),
        (holds_the_beginning_of_another, "the beginning of a copy of other images or of another size"),
    ],
)
def test_a_place_that_is_taken_stays_as_it_is(few, tmp_path, where, words):
    folder = where(tmp_path, few)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=words) as error:
        prepare_copy(few, read_grey, folder, 12, workers=0)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_an_empty_or_a_coming_folder_is_followed(few, tmp_path, there):
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "copy"
    if there:
        target.mkdir()
    (tmp_path / "link").symlink_to(target)
    prepare_copy(few, read_grey, tmp_path / "link", 12, workers=0)
    assert (tmp_path / "link").is_symlink() and (target / "manifest.json").is_file()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["copy"]
    assert open_prepared(tmp_path / "link", 12, few, read_grey)(few["image00"]).shape == (10, 12)


@pytest.mark.parametrize("name", ["line\rbreak", os.fsdecode(b"caf\xe9")])
def test_names_that_do_not_come_back_from_a_table_are_refused_before_the_work(few, tmp_path, name):
    with pytest.raises(DataError, match="names of 1 images have control characters or are not UTF-8: .*rename") as told:
        prepare_copy({**few, name: few["image00"]}, Reads(breaks_at=0), tmp_path / "copy", 12, workers=0)
    assert str(told.value).isprintable() and not list(tmp_path.glob("copy*"))


def test_a_mounted_disk_is_refused_before_the_work(few, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "disk")
    read = Reads()
    with pytest.raises(DataError, match="disk is a mounted disk, which cannot be replaced: give a folder in it"):
        prepare_copy(few, read, tmp_path / "disk", 12, workers=0)
    assert read.count == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_named(few, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(DataError, match="Permission denied"):
        prepare_copy(few, read_grey, tmp_path / "closed" / "copy", 12, workers=0)


@pytest.mark.parametrize(("size", "workers", "words"), [(0, 0, "size is 0"), (8, -1, "workers is -1")])
def test_numbers_out_of_range_are_named(few, tmp_path, size, workers, words):
    with pytest.raises(DataError, match=words):
        prepare_copy(few, read_grey, tmp_path / "copy", size, workers)


def test_drawn_images_need_no_copy(tmp_path):
    with pytest.raises(DataError, match="SyntheticDataModule has no image files"):
        SyntheticDataModule(num_train=1, num_val=1, num_test=1, size=32).prepare(tmp_path / "copy")


# copies that do not fit


def another_size(root: Path, copy: Path, options: dict) -> None:
    options["size"] = 40


def no_copy(root: Path, copy: Path, options: dict) -> None:
    options["prepared"] = str(root)


def a_new_image(root: Path, copy: Path, options: dict) -> None:
    lines = (root / "Data_Entry_2017_v2020.csv").read_text().splitlines()
    lines.append(lines[1].replace("00000001_000", "00000001_009"))
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))
    (root / "train_val_list.txt").write_text((root / "train_val_list.txt").read_text() + "\n00000001_009.png")
    folder = root / "images_001" / "images"
    shutil.copy(folder / "00000001_000.png", folder / "00000001_009.png")


def a_replaced_file(root: Path, copy: Path, options: dict) -> None:
    path = sorted(root.rglob("*.png"))[5]
    Image.fromarray(np.full((64, 64), 9, dtype=np.uint8)).save(path, compress_level=0)


def other_pixels_in_files_of_the_same_size(root: Path, copy: Path, options: dict) -> None:
    path = sorted(root.rglob("*.png"))[0]  # the first is spot-checked
    size = path.stat().st_size
    image = np.asarray(Image.open(path)).copy()
    image[:8] = 255 - image[:8]
    Image.fromarray(image).save(path)
    content = path.read_bytes()
    # filled up by a text chunk before the end: length, name, key, text and checksum
    chunk = b"tEXta\0" + b"b" * (size - len(content) - 14)
    filler = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path.write_bytes(content[:-12] + filler + content[-12:])
    assert path.stat().st_size == size


def a_damaged_index(root: Path, copy: Path, options: dict) -> None:
    path = copy / "index.csv"
    path.write_text(path.read_text().replace(",50,", ",49,", 1))


def a_cut_file(root: Path, copy: Path, options: dict) -> None:
    with open(copy / "images.npy", "r+b") as file:
        file.truncate(4000)


def another_array(root: Path, copy: Path, options: dict) -> None:
    np.save(copy / "images.npy", np.zeros((3, 50, 50), dtype=np.uint8))


def another_format(root: Path, copy: Path, options: dict) -> None:
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace("version 1", "version 9"))


def no_json(root: Path, copy: Path, options: dict) -> None:
    (copy / "manifest.json").write_text("{")


def no_index(root: Path, copy: Path, options: dict) -> None:
    (copy / "index.csv").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (another_size, "images of 50 pixels, but data.size is 40"),
        (no_copy, "no prepared copy.*python -m lightning_chex prepare"),
        (a_new_image, "1 of the 48 images are not in the prepared copy.*00000001_009"),
        (a_replaced_file, "1 images are no longer what the prepared copy"),
        (other_pixels_in_files_of_the_same_size, "1 images are no longer what the prepared copy"),
        (a_damaged_index, "index.csv was changed"),
        (a_cut_file, "cannot read .*images.npy"),
        (another_array, "not what its manifest says"),
        (another_format, "version 9"),
        (no_json, "cannot read .*manifest.json"),
        (no_index, "cannot read .*index.csv"),
    ],
)
def test_a_copy_that_does_not_fit_is_refused_before_training(made, tmp_path, spoil, words):
    shutil.copytree(made / "nih", tmp_path / "nih")
    shutil.copytree(made / "nih_copy", tmp_path / "copy")
    options = {"root": str(tmp_path / "nih"), "size": SIZE, "prepared": str(tmp_path / "copy")}
    if spoil is other_pixels_in_files_of_the_same_size:  # compressed less, so that there is room for other pixels
        path = sorted((tmp_path / "nih").rglob("*.png"))[0]
        Image.fromarray(np.asarray(Image.open(path))).save(path, compress_level=0)
        shutil.rmtree(tmp_path / "copy")
        NIHDataModule(root=str(tmp_path / "nih"), size=SIZE).prepare(tmp_path / "copy", workers=0)
    spoil(tmp_path / "nih", tmp_path / "copy", options)
    with pytest.raises(DataError, match=words) as error:
        NIHDataModule(**options).setup("fit")
    assert "\n" not in str(error.value)


def test_a_damaged_image_of_a_copy_is_an_error_when_it_is_read(few, tmp_path):
    copy = prepare_copy(few, read_grey, tmp_path / "copy", 12, workers=0)
    with open(copy / "images.npy", "r+b") as file:
        file.seek(-144 * 37, os.SEEK_END)  # number 3, which no spot check looks at
        file.write(b"\x01\x02")
    reader = open_prepared(copy, 12, few, read_grey)
    assert reader(few["image02"]).shape == (10, 12)
    with pytest.raises(DataError, match="image03.png is damaged in the prepared copy"):
        reader(few["image03"])


def test_a_copy_may_hold_more_than_is_needed(few, tmp_path):
    copy = prepare_copy(few, read_grey, tmp_path / "copy", 12, workers=0)
    some = {name: few[name] for name in ("image31", "image02")}
    reader = open_prepared(copy, 12, some, read_grey)
    for path in some.values():
        source = np.asarray(Image.open(path))
        size = (10, 12) if source.shape == (30, 24) else (12, 10)
        assert np.array_equal(reader(path), cv2.resize(source, size, interpolation=cv2.INTER_AREA))
    with pytest.raises(DataError, match="not in the prepared copy"):
        reader(few["image05"])


# images that cannot be read


def test_unreadable_images_are_named_and_all_others_done(few, tmp_path):
    Path(few["image07"]).write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 40 images cannot be read: .*image07.png.*on_unreadable: skip"):
        prepare_copy(few, read_grey, tmp_path / "copy", 12, workers=0)
    assert not (tmp_path / "copy").exists()
    with pytest.warns(UserWarning, match="1 of 40 images cannot be read and are recorded as such: image07"):
        prepare_copy(few, reads := Reads(), tmp_path / "copy", 12, workers=0, on_unreadable="skip")
    assert reads.count == 1
    reader = open_prepared(tmp_path / "copy", 12, few, read_grey)
    assert reader.unreadable == [few["image07"]]
    with pytest.raises(DataError, match="image07.png: it was unreadable when"):
        reader(few["image07"])


def test_the_call_after_a_repair_makes_what_was_repaired(few, tmp_path):
    intact = {name: Path(few[name]).read_bytes() for name in ("image07", "image09")}
    Path(few["image07"]).write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 40 images cannot be read"):
        prepare_copy(few, read_grey, tmp_path / "copy", 12, workers=0)
    Path(few["image07"]).write_bytes(intact["image07"])
    Image.fromarray(np.full((30, 24), 3, dtype=np.uint8)).save(few["image09"])  # replaced as well, though it was made
    reads = Reads()
    prepare_copy(few, reads, tmp_path / "copy", 12, workers=0)
    assert reads.count == 2
    reader = open_prepared(tmp_path / "copy", 12, few, read_grey)
    assert (reader(few["image09"]) == 3).all() and reader(few["image07"]).std() > 10


def test_a_copy_can_be_made_where_one_stands(few, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    prepare_copy(few, read_grey, ".", 12, workers=0)
    assert (tmp_path / "empty" / "manifest.json").is_file()


def test_many_unreadable_images_are_an_error_under_either_policy(few, tmp_path):
    for name in ("image07", "image09"):
        Path(few[name]).write_bytes(b"no image")
    with pytest.raises(DataError, match="2 of the 40 images of the data set cannot be read"):
        prepare_copy(few, read_grey, tmp_path / "copy", 12, workers=0, on_unreadable="skip")
    assert not (tmp_path / "copy").exists()


@pytest.mark.real_data
@pytest.mark.parametrize(("module", "folder"), [(NIHDataModule, "nih_chestxray8"), (CohenDataModule, "brixia_cohen")])
def test_real_images_are_the_same_to_the_last_bit(chex_data, tmp_path, module, folder):
    plain = module(root=str(chex_data / folder), size=96)
    plain.prepare(tmp_path / "copy", workers=2)
    copied = module(root=str(chex_data / folder), size=96, prepared=str(tmp_path / "copy"))
    for data in (plain, copied):
        data.setup("fit")
    numbers = range(0, len(plain.dataset("train")), 7)
    torch.manual_seed(0)
    before = [plain.dataset("train")[i] for i in numbers]
    torch.manual_seed(0)
    for one, i in zip(before, numbers, strict=True):
        assert_equal(one, copied.dataset("train")[i])
