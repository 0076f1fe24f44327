import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import write_nih
from PIL import Image
from tiny import SpyIBA, TinyTask, tiny_trainer
from torch.utils.data import DataLoader

from lightning_chex.data import PATHOLOGIES, DataError, NIHDataModule
from lightning_chex.data.images import images as image_files
from lightning_chex.data.images.images import examine
from lightning_chex.data.images.unreadable import ReadableLoader, SkipUnreadable, check_share, collate_readable
from lightning_chex.explanations import IBACallback

HEALTHY = 120  # of which 1 % is one image


class Images:
    """Numbers as samples; some raise, and every attempt is on record."""

    def __init__(self, count: int, bad: set[int]) -> None:
        self.image_ids = [f"image{i}" for i in range(count)]
        self.bad = bad
        self.attempts: list[int] = []

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> dict:
        self.attempts.append(index)
        if index in self.bad:
            raise DataError(f"cannot read image {index}")
        return {"image": torch.full((1,), float(index)), "image_id": self.image_ids[index]}


def damage(path: Path) -> None:
    """Overwrite the pixels of a PNG, which keeps its beginning and its end."""
    content = path.read_bytes()
    path.write_bytes(content[:41] + bytes(16) + content[57:])  # signature, header and the name of the chunk take 41


@pytest.mark.filterwarnings("ignore:unreadable image")
def test_the_next_readable_image_takes_the_place():
    images = Images(400, bad={3, 4, 399})
    dataset = SkipUnreadable(images, "train split", replace=True)
    given = [dataset[i]["image_id"] for i in (2, 3, 4, 5, 398, 399)]
    assert given == ["image2", "image5", "image5", "image5", "image398", "image0"]
    assert images.attempts == [2, 3, 4, 5, 5, 5, 398, 399, 0]  # what is known to be unreadable is not tried again
    assert dataset.unreadable == ["image3", "image4", "image399"]
    assert len(dataset) == 400


@pytest.mark.filterwarnings("ignore:unreadable image")
@pytest.mark.parametrize("workers", [0, 2])
def test_elsewhere_it_is_left_out_and_so_is_an_empty_batch(workers):
    dataset = SkipUnreadable(Images(400, bad={1, 4, 5}), "val split", replace=False)
    loader = ReadableLoader(dataset, batch_size=2, collate_fn=collate_readable, num_workers=workers)
    for _ in range(2):
        batches = [batch["image_id"] for batch in loader]
        assert batches[:3] == [["image0"], ["image2", "image3"], ["image6", "image7"]]
        assert sum(batches, []) == [f"image{i}" for i in range(400) if i not in {1, 4, 5}]
        assert dataset.unreadable == ["image1", "image4", "image5"]  # whichever process met them


def test_each_is_warned_of_once_with_its_number():
    dataset = SkipUnreadable(Images(400, bad={7, 9}), "val split", replace=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            for index in range(12):
                _ = dataset[index]
    assert [str(warning.message) for warning in said] == [
        "unreadable image 1 of the val split, skipped: cannot read image 7",
        "unreadable image 2 of the val split, skipped: cannot read image 9",
    ]


@pytest.mark.filterwarnings("ignore:unreadable image")
@pytest.mark.parametrize(("images", "bad", "passes"), [(400, 4, 1), (400, 5, 0), (99, 1, 1), (99, 2, 0), (1, 1, 0)])
@pytest.mark.parametrize("replace", [True, False])
def test_more_than_one_in_a_hundred_is_an_error(images, bad, passes, replace):
    dataset = SkipUnreadable(Images(images, bad=set(range(bad))), "train split", replace)
    if passes:
        assert [dataset[i] is None for i in range(bad)] == [not replace] * bad
    else:
        with pytest.raises(DataError, match=f"{bad} of the {images} images of the train split cannot be read: image0"):
            for index in range(bad):
                _ = dataset[index]


def test_no_image_at_all_is_no_share():
    check_share(0, 0, "split", "")


def test_other_errors_are_not_swallowed():
    class Broken(Images):
        def __getitem__(self, index):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        _ = SkipUnreadable(Broken(9, set()), "val split", replace=False)[0]


# a run


@pytest.fixture(autouse=True)
def one_decoded(monkeypatch):
    """Let the check before a training decode the first image alone, so that the others are met while it runs."""
    monkeypatch.setattr(image_files, "DECODED", 1)


@pytest.fixture
def nih(tmp_path):
    """Noisy images in the layout of NIH: one for training, one for test (with a box) damaged in the middle."""
    root = write_nih(tmp_path / "nih", size=16, healthy=HEALTHY, folder="images")
    rng = np.random.default_rng(0)
    for path in sorted(root.rglob("*.png")):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    return root


def data_of(root: Path, **options) -> NIHDataModule:
    return NIHDataModule(root=str(root), **{"size": 16, "batch_size": 4, "on_unreadable": "skip", **options})


def damaged(root: Path, split: str) -> str:
    """Damage the last image of a split, which the check before a training does not decode, and return its id."""
    data = data_of(root)
    data.setup()
    dataset = data.dataset(split)
    assert not examine(dataset.paths).problems
    damage(Path(dataset.paths[-1]))
    assert not examine(dataset.paths, decode=False).problems  # its header and its end are whole
    return dataset.image_ids[-1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_ends_with_the_error_or_goes_on_without(nih, tmp_path, workers):
    name = damaged(nih, "train")
    torch.manual_seed(0)  # of 130 images in batches of 4 two are left out of each epoch
    with pytest.raises(DataError, match=f"cannot read image .*{name}.png"):
        tiny_trainer(tmp_path).fit(TinyTask(PATHOLOGIES), datamodule=data_of(nih, on_unreadable="error"))

    data = data_of(nih, num_workers=workers)
    task = TinyTask(PATHOLOGIES)
    trainer = tiny_trainer(tmp_path, max_epochs=2)
    with pytest.warns(UserWarning, match=f"1 unreadable images were skipped: {name}"):
        trainer.fit(task, datamodule=data)
    assert data.unreadable_images == [name]
    assert task.steps == 2 * (len(data.dataset("train")) // 4)  # batches keep their size and number


def test_an_overview_does_without_and_leaves_the_module_as_it_was(nih):
    data = data_of(nih)
    name = data.explained_dataset("validate")[0]["image_id"]
    damage(next(nih.rglob(f"{name}.png")))
    data = data_of(nih)
    with pytest.warns(UserWarning, match=name):
        found = data.overview(3)
    assert len(found["samples"]) == 2 and name not in [sample["image_id"] for sample in found["samples"]]
    assert not data._readable  # what was met belongs to the datasets that were looked at


def test_nothing_is_listed_where_all_is_well(nih, tmp_path):
    data = data_of(nih)
    tiny_trainer(tmp_path, limit_train_batches=2).fit(TinyTask(PATHOLOGIES), datamodule=data)
    assert data.unreadable_images == []


@pytest.mark.filterwarnings("ignore:.*unreadable image")
@pytest.mark.parametrize("batch_size", [1, 4])
def test_validation_and_explanation_do_without(nih, tmp_path, batch_size):
    name = damaged(nih, "val")
    data = data_of(nih, batch_size=batch_size)
    data.setup("validate")
    tuning = data.explained_dataset("validate").dataset.dataset
    damage(Path(tuning.paths[0]))
    attributor = SpyIBA()
    explain = IBACallback(attributor, num_images=-1, batch_size=batch_size)
    tiny_trainer(tmp_path, explain).validate(TinyTask(PATHOLOGIES), datamodule=data, verbose=False)
    assert data.unreadable_images == sorted([name, tuning.image_ids[0]])
    assert sum(map(len, attributor.images)) == len(tuning) - 1
    ids = [image for batch in data.val_dataloader() for image in batch["image_id"]]
    assert sorted([*ids, name]) == sorted(data.dataset("val").image_ids)


@pytest.mark.filterwarnings("ignore:.*unreadable image")
def test_a_training_begins_where_the_first_explained_image_is_unreadable(nih, tmp_path):
    data = data_of(nih)
    name = data.explained_dataset("validate")[0]["image_id"]
    damage(next(nih.rglob(f"{name}.png")))
    data = data_of(nih)
    attributor = SpyIBA()
    tiny_trainer(tmp_path, IBACallback(attributor, num_images=-1)).fit(TinyTask(PATHOLOGIES), datamodule=data)
    assert data.unreadable_images == [name] and attributor.images


@pytest.mark.filterwarnings("ignore:.*unreadable image")
def test_a_prepared_copy_remembers_what_was_unreadable(nih, tmp_path):
    name = damaged(nih, "test")
    data_of(nih).prepare(tmp_path / "copy", workers=0)
    data = data_of(nih, prepared=str(tmp_path / "copy"))
    data.setup("test")
    ids = [image for batch in data.test_dataloader() for image in batch["image_id"]]
    assert sorted([*ids, name]) == sorted(data.dataset("test").image_ids)
    with pytest.raises(DataError, match=f"1 images could not be read when .*{name}.png"):
        data_of(nih, prepared=str(tmp_path / "copy"), on_unreadable="error").setup("test")


class Recording(NIHDataModule):
    """Writes what each process has on its list at the end."""

    def teardown(self, stage):
        super().teardown(stage)
        path = Path(self.root).parent / f"rank{self.trainer.global_rank}.txt"
        path.write_text(" ".join(self.unreadable_images))


@pytest.mark.filterwarnings("ignore")
def test_two_processes_share_one_list(nih, tmp_path):
    names = [damaged(nih, split) for split in ("train", "val")]
    data = Recording(root=str(nih), size=16, batch_size=4, num_workers=1, on_unreadable="skip")
    trainer = tiny_trainer(tmp_path, devices=2, strategy="ddp_fork", num_sanity_val_steps=0)
    trainer.fit(TinyTask(PATHOLOGIES), datamodule=data)
    assert [(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)] == [" ".join(sorted(names))] * 2


def test_a_loader_without_the_policy_is_the_plain_one(nih):
    data = data_of(nih, on_unreadable="error")
    data.setup()
    assert type(data.val_dataloader()) is DataLoader
    assert data.readable(data.dataset("val"), "val split").dataset is data.dataset("val")


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match="on_unreadable is 'ignore'"):
        NIHDataModule(on_unreadable="ignore")
