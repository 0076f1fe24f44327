import errno
import os

import pytest
import torch

from lightning_chex.attribution import EveryPixel
from lightning_chex.attribution.network.chunks import in_chunks
from lightning_chex.messages import one_line, remedy_for


@pytest.mark.parametrize("name", ["a\nerror: FAKE", "a\r\x1b[2Kb", "a\x00b", "a\u2028b", "a\u202eb", "\udcff", "tab\t"])
def test_whatever_a_name_holds_the_line_stays_one(name):
    line = one_line(f"cannot read {name}")
    assert line.isprintable() and line.isascii() and line.splitlines() == [line]


def test_plain_text_stays_as_it_is():
    assert one_line("Röntgen, 肺.png: 'a b' \\n") == "Röntgen, 肺.png: 'a b' \\n"


def test_a_very_long_path_is_cut_in_its_middle():
    line = one_line(f"cannot open /start{'x' * 5000}/end.png: too long")
    assert len(line) < 400 and line.startswith("cannot open /start") and line.endswith("/end.png: too long")
    assert one_line("x" * 300) == "x" * 300


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EROFS, "Read-only file system; give another folder"),
        (errno.EACCES, "get the right to it"),
        (errno.EPERM, "get the right to it"),
        (errno.ENAMETOOLONG, "give a shorter one"),
        (errno.ELOOP, "remove the link that leads back to itself"),
        (errno.ENOENT, "it was removed while this was at work"),
        (errno.ENOTDIR, "a part of this path is a file"),
        (errno.EISDIR, "give a file"),
        (errno.EIO, "check the disk"),
        (errno.ESTALE, "stale network file handle: remount the drive"),
    ],
)
def test_an_error_of_a_disk_names_the_place_and_the_remedy(number, words):
    told = remedy_for(OSError(number, os.strerror(number), "runs/a.png"))
    assert told.startswith("runs/a.png: ") and words in told and told.endswith("What was written before is kept")


def test_a_copy_that_finds_no_room_names_the_full_disk():
    error = OSError(errno.ENOSPC, "No space left on device", "/tmp/part", None, "runs/last.ckpt")
    assert remedy_for(error).startswith("runs/last.ckpt: No space left")
    assert remedy_for(OSError(errno.ENOENT, "gone", "from", None, "to")).startswith("from: ")


def test_full_shared_memory_is_told_from_other_errors():
    error = RuntimeError("unable to write to file </torch_1>: No space left on device (28)")
    assert "--data.num_workers 0" in remedy_for(error)


@pytest.mark.parametrize(
    "bug", [RuntimeError("shape mismatch"), KeyError("x"), ValueError("y"), OSError("no number"), ConnectionError(111)]
)
def test_an_error_of_the_program_keeps_its_traceback(bug):
    assert remedy_for(bug) is None


def exhausted(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 0 bytes free")


def test_a_device_without_memory_is_one_line_with_the_remedy_for():
    with pytest.raises(torch.OutOfMemoryError) as training:
        exhausted()
    with pytest.raises(torch.OutOfMemoryError) as explaining:
        list(in_chunks(1, 1, exhausted, EveryPixel()))
    of_training, of_explaining = (remedy_for(caught.value) for caught in (training, explaining))
    assert "--data.batch_size" in of_training and "Tried to allocate 2.00 GiB. GPU 0 has" in of_training
    assert "a single image at a time: take a deeper layer" in of_explaining
    assert len(of_training.splitlines()) == len(of_explaining.splitlines()) == 1
