"""Files that are whole or not there, and folders that one process at a time works in."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lightning_chex.files import hold, remove_unfinished, write_whole


@pytest.mark.parametrize("content", [b"new", "new", lambda file: file.write(b"new")])
@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path, content, sync):
    path = tmp_path / "a.txt"
    path.write_text("old")
    write_whole(path, content, sync=sync)
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_a_name_as_long_as_the_disk_takes_is_written(tmp_path):
    write_whole(tmp_path / ("n" * 255), "all")
    assert (tmp_path / ("n" * 255)).read_text() == "all"


def test_what_fails_midway_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fails(file):
        file.write(b"ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError) as raised:
        write_whole(path, fails)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert raised.value.strerror == "No space left on device"
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:  # a folder is not made anew
        write_whole(tmp_path / "gone" / "a.txt", "x")
    assert raised.value.filename == str(tmp_path / "gone" / "a.txt")

    def without_number(file):
        raise OSError("encoder error -2")  # as Pillow says it

    with pytest.raises(OSError, match="encoder error -2") as raised:
        write_whole(tmp_path / "a.png", without_number)
    assert raised.value.filename == str(tmp_path / "a.png") and raised.value.errno == errno.EIO


def started(code: str, folder: Path) -> subprocess.Popen:
    """A process that runs this code and says ``ready`` when it is where it should be."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


HOLDER = """
    import sys, time
    from lightning_chex.files import hold
    from pathlib import Path
    with hold(Path(sys.argv[1])):
        print("ready", flush=True)
        time.sleep(60)
"""


def test_a_process_that_is_killed_leaves_the_old_file_and_no_lock(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    code = """
        import sys, time
        from lightning_chex.files import write_whole
        from pathlib import Path
        def slowly(file):
            file.write(b"half")
            file.flush()
            print("ready", flush=True)
            time.sleep(60)
        write_whole(Path(sys.argv[1], "a.txt"), slowly)
    """
    process = started(code, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(os.listdir(tmp_path)) == 2
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_held_by_one_process_and_free_when_it_is_killed(tmp_path):
    folder = tmp_path / "made" / "anew"
    process = started(HOLDER, folder)
    try:
        with pytest.raises(BlockingIOError) as raised, hold(folder):
            pass
        assert raised.value.filename == str(folder)
        assert raised.value.strerror == f"another process ({process.pid}) is at work in it"
    finally:
        process.kill()
        process.wait()
    assert (folder / "lock").exists()  # a killed process removes nothing
    with hold(folder) as held:
        held.check()
    assert os.listdir(folder) == []


def test_a_folder_that_is_removed_or_replaced_is_noticed(tmp_path):
    with hold(tmp_path / "a") as held:
        shutil.rmtree(tmp_path / "a")
        with pytest.raises(FileNotFoundError) as raised:
            held.check()
        assert raised.value.filename == str(tmp_path / "a") and "removed" in raised.value.strerror
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "lock").write_text("of another process")
        with pytest.raises(FileNotFoundError):
            held.check()
    assert (tmp_path / "a" / "lock").read_text() == "of another process"
