"""The folder that ``evaluate`` or ``explain`` writes to."""

import errno
import os
import shutil

import pytest
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from test_files import HOLDER, started

from lightning_chex.runs.output_folder import held


def test_a_second_process_is_refused(tmp_path):
    folder = tmp_path / "out"
    process = started(HOLDER, folder)
    try:
        with pytest.raises(MisconfigurationException, match="another process .* is at work in it: wait"), held(folder):
            raise AssertionError("two processes are in one folder")
    finally:
        process.kill()
        process.wait()
    with held(folder):  # a killed process holds nothing
        assert folder.is_dir()


@pytest.mark.parametrize("ends_with_an_error", [False, True])
def test_a_folder_that_was_removed_is_told(tmp_path, ends_with_an_error):
    folder = tmp_path / "out"
    told = pytest.raises(MisconfigurationException, match=r"out: it was removed .* give the same command again")
    with told, held(folder):
        shutil.rmtree(folder)
        if ends_with_an_error:
            (folder / "maps").mkdir()


def test_an_error_in_writing_names_the_file_and_the_remedy(tmp_path):
    told = pytest.raises(MisconfigurationException, match=r"a\.npy: No space left .* the same command goes on")
    with told, held(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "a.npy"))


def test_a_folder_in_which_nothing_was_made_is_not_left(tmp_path):
    with pytest.raises(MisconfigurationException, match="another error"), held(tmp_path / "out"):
        raise MisconfigurationException("another error")
    assert not list(tmp_path.iterdir())
