"""What several checkpoints are called, and so the folders of their results."""

from pathlib import Path

import pytest

from lightning_chex.checkpoints import CheckpointError, named_checkpoints, paths_of


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a/plain.ckpt", "b/weighted.ckpt"], ["plain", "weighted"]),
        (["runs/x/one/checkpoints/best.ckpt", "runs/x/two/checkpoints/best.ckpt"], ["one", "two"]),
        (["one/best.ckpt", "two/best.ckpt"], ["one", "two"]),
        (["a/one/best.ckpt", "b/one/best.ckpt"], ["1_one_best", "2_one_best"]),
        (["a/x!.ckpt", "b/x?.ckpt"], ["a", "b"]),  # the same once they are fit for folders
        (["epoch=3-step=2.ckpt", "with space.ckpt"], ["epoch=3-step=2", "with space"]),
        ({"plain": "one/best.ckpt", "weighted": "one/last.ckpt"}, ["plain", "weighted"]),
        ({1: "one/best.ckpt", 2: "one/last.ckpt"}, ["1", "2"]),  # as YAML reads numbers
        ("best.ckpt", ["best"]),
        (None, []),
        ([], []),
    ],
)
def test_names_come_from_the_files_or_the_runs_or_the_user(given, names):
    found = named_checkpoints(given)
    assert list(found) == names and list(found.values()) == [Path(path) for path in paths_of(given)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["a.ckpt", "./a.ckpt"], "twice"),
        (["a.ckpt", "b/../a.ckpt"], "twice"),
        ({"a/b": "a.ckpt", "c": "b.ckpt"}, "'a/b'"),
        ({"..": "a.ckpt", "c": "b.ckpt"}, r"'\.\.'"),
        ({1: "a.ckpt", "1": "b.ckpt"}, "one name: 1, 1"),
        ({"": "a.ckpt", "c": "b.ckpt"}, "''"),
        ({"results.json": "a.ckpt", "c": "b.ckpt"}, "results.json"),
    ],
)
def test_what_no_folder_can_be_called_is_refused(given, told):
    with pytest.raises(CheckpointError, match=told):
        named_checkpoints(given)
