"""Files that have passed their check are not opened again; changed, new, moved and missing ones are."""

import os
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lightning_chex.data import DataError
from lightning_chex.data.images import known_files
from lightning_chex.data.images.images import examine
from lightning_chex.data.images.known_files import RECORD, check_once


@pytest.fixture
def opened(monkeypatch):
    """Paths of the files that were opened, call by call; every number of files is worthwhile."""
    calls: list[list[str]] = []

    def spy(paths, decode):
        calls.append([Path(path).name for path in paths])
        return examine(paths, decode)

    monkeypatch.setattr(known_files, "examine", spy)
    monkeypatch.setattr(known_files, "WORTHWHILE", 1)
    return calls


@pytest.fixture
def files(tmp_path) -> list[str]:
    (tmp_path / "data").mkdir()
    (tmp_path / "runs").mkdir()
    paths = [tmp_path / "data" / f"{name}.png" for name in "abcd"]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((4, 4 + number), 9 * number, np.uint8)).save(path)
    return [str(path) for path in paths]


def trainer(tmp_path, first: bool = True):
    return SimpleNamespace(default_root_dir=str(tmp_path / "runs"), is_global_zero=first)


def test_a_second_start_opens_none_of_them(files, tmp_path, opened):
    check_once(files, trainer(tmp_path))
    check_once(files, trainer(tmp_path))
    check_once(files[1:3], trainer(tmp_path))
    assert opened == [["a.png", "b.png", "c.png", "d.png"], [], []]
    record = tmp_path / "runs" / RECORD
    assert list((tmp_path / "runs").iterdir()) == [record]
    assert len(record.read_bytes()) == 16 + 4 * 8 and b"png" not in record.read_bytes()  # no name is in it


def test_a_changed_a_new_and_a_moved_file_are_opened(files, tmp_path, opened):
    check_once(files[:3], trainer(tmp_path))
    before = os.stat(files[0])
    Path(files[0]).write_bytes(Path(files[0]).read_bytes())  # the same content, at another time
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    os.rename(files[1], f"{files[1][:-5]}moved.png")
    check_once([files[0], f"{files[1][:-5]}moved.png", *files[2:]], trainer(tmp_path))
    assert opened[1] == ["a.png", "moved.png", "d.png"]


def test_a_damaged_and_a_missing_file_are_found_beside_known_ones(files, tmp_path, opened):
    check_once(files, trainer(tmp_path))
    Path(files[1]).write_bytes(Path(files[1]).read_bytes()[:40])
    Path(files[3]).unlink()
    for _ in range(2):  # what has failed is not known
        with pytest.raises(DataError, match="2 of 4 images cannot be read: .*b.png.*d.png"):
            check_once(files, trainer(tmp_path))
    assert opened[1:] == [["b.png", "d.png"]] * 2


def test_a_damaged_file_keeps_no_other_from_being_recorded(files, tmp_path, opened):
    whole = Path(files[1]).read_bytes()
    Path(files[1]).write_bytes(whole[:40])
    with pytest.raises(DataError, match="1 of 4 images cannot be read: .*b.png"):
        check_once(files, trainer(tmp_path))
    Path(files[1]).write_bytes(whole)
    check_once(files, trainer(tmp_path))
    assert opened == [["a.png", "b.png", "c.png", "d.png"], ["b.png"]]


def test_other_sets_stay_known_and_relative_paths_are_the_same_files(files, tmp_path, opened, monkeypatch):
    check_once(files[:2], trainer(tmp_path))
    check_once(files[2:], trainer(tmp_path))
    monkeypatch.chdir(tmp_path)
    check_once([f"data/{name}.png" for name in "abcd"], trainer(tmp_path))
    assert opened[2] == []


def test_a_file_that_was_overwritten_and_given_its_old_time_is_opened(files, tmp_path, opened):
    check_once(files, trainer(tmp_path))
    before = os.stat(files[2])
    Path(files[2]).write_bytes(b"x" * before.st_size)
    os.utime(files[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="1 of 4 images cannot be read: .*c.png"):
        check_once(files, trainer(tmp_path))
    link = tmp_path / "data" / "link.png"
    other = tmp_path / "other.png"
    other.write_bytes(Path(files[0]).read_bytes())
    os.utime(other, ns=(os.stat(files[0]).st_atime_ns, os.stat(files[0]).st_mtime_ns))
    for target in (files[0], other):  # of the same size and time
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        check_once([str(link)], trainer(tmp_path))
        assert opened[-1] == ["link.png"]


def test_a_damaged_record_is_made_anew(files, tmp_path, opened):
    check_once(files, trainer(tmp_path))
    record = tmp_path / "runs" / RECORD
    whole = record.read_bytes()
    for place in range(len(whole)):
        record.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        check_once(files, trainer(tmp_path))
        record.write_bytes(whole[:place])
        check_once(files, trainer(tmp_path))
    assert all(len(names) == 4 for names in opened) and record.read_bytes() == whole
    record.unlink()
    record.mkdir()
    with pytest.warns(UserWarning, match="cannot write .*checked_images.bin"):
        check_once(files, trainer(tmp_path))


def test_two_processes_write_one_whole_record(files, tmp_path, opened):
    threads = [Thread(target=check_once, args=(part, trainer(tmp_path))) for part in (files[:2], files[2:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_once(files, trainer(tmp_path))  # the later one may not have seen what the earlier one wrote
    check_once(files, trainer(tmp_path))
    assert len(opened[2]) in (0, 2) and opened[3] == []


def test_where_nothing_can_be_kept_all_are_opened(files, tmp_path, opened, monkeypatch):
    check_once(files, None)
    check_once(files, SimpleNamespace(default_root_dir=str(tmp_path / "none"), is_global_zero=True))
    check_once(files, trainer(tmp_path, first=False))  # the first process alone writes
    assert not (tmp_path / "none").exists() and not list((tmp_path / "runs").iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "unlink", full)  # as on a file system that became read-only
    with pytest.warns(UserWarning, match=r"checked_images.bin \(No space left on device\): the next start"):
        check_once(files, trainer(tmp_path))
    assert [len(names) for names in opened] == [4] * 4 and not (tmp_path / "runs" / RECORD).exists()


def test_few_files_leave_no_record(files, tmp_path):
    check_once(files, trainer(tmp_path))
    assert not list((tmp_path / "runs").iterdir())
