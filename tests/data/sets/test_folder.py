"""A folder of images alone: what is found, how it is named, and what cannot be done with it."""

import numpy as np
import pytest
import torch
from fakes import write_nih
from fakes_brixia import write_dicom
from PIL import Image

from lightning_chex.data import DataError, ImageFolderDataModule, ImageTransform, NIHDataModule, SyntheticDataModule
from lightning_chex.data.images.images import read_grey

pytestmark = pytest.mark.filterwarnings("ignore")


def picture(path, shape=(40, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "xrays"
    for i, name in enumerate(["b.png", "ward/1.jpg", "ward/deep/1.png", "ward/a.b.c.JPEG", "z e/ü.png"]):
        picture(folder / name, seed=i)
    (folder / "notes.txt").write_text("no image")
    picture(folder / ".thumbnails" / "1.png")
    picture(folder / "._b.png")
    picture(folder / "out" / "overlays" / "1.png")
    (folder / "out" / "explanation.json").write_text("{}")
    return folder


IDS = ["b", "ward/1", "ward/a.b.c", "ward/deep/1", "z e/ü"]


def test_images_of_all_folders_are_found_and_named_by_their_path(root):
    data = ImageFolderDataModule(str(root), class_names=["Mass"], size=32, batch_size=2)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [name for batch in batches for name in batch["image_id"]] == IDS
    assert all("label" not in batch for batch in batches) and data.class_names == ("Mass",)
    expected = ImageTransform(32)(read_grey(root / "ward" / "1.jpg"))["image"]
    assert torch.equal(batches[0]["image"][1], expected)


def test_what_was_chosen_is_predicted_with_the_size_of_its_file(root):
    picture(root / "b.png", (40, 70))
    data = ImageFolderDataModule(str(root), size=32)
    data.setup("predict")
    chosen = data.choose_predicted(limit=3, finished={"ward/1"})
    assert chosen.image_ids == IDS[:3] and not chosen.labelled
    (batch,) = data.predict_dataloader()
    assert batch["image_id"] == ["b", "ward/a.b.c"] and batch["source_size"] == [(40, 70), (40, 30)]
    assert len(data.choose_predicted(finished=set(IDS)).images) == 0


def test_a_part_of_a_data_set_is_chosen_without_augmentation(tmp_path):
    data = NIHDataModule(str(write_nih(tmp_path / "nih")), size=64, augment=True)
    data.setup("predict")
    tuning = data.choose_predicted("tuning", only_positive=True)
    labels = data.parts()["tuning"].labels
    assert tuning.labelled and len(tuning.image_ids) == int((labels > 0).any(1).sum()) < len(labels)
    first = data.choose_predicted("train").images[0]
    assert torch.equal(first["image"], data.parts()["train"][0]["image"]) and first["source_size"] == (64, 64)
    assert len(data.choose_predicted("all").image_ids) == sum(len(part) for part in data.parts().values())
    with pytest.raises(DataError, match="split is 'nowhere': NIHDataModule has train, val, test, tuning; give one"):
        data.choose_predicted("nowhere")


def test_scores_are_labels_too():
    data = SyntheticDataModule(num_train=1, num_val=1, num_test=4, size=32, target="severity")
    chosen = data.choose_predicted(only_positive=True)
    assert chosen.labelled and len(chosen.image_ids) == 4  # a score of 0 is explained like any other


def test_without_labels_nothing_is_trained_or_measured(root):
    data = ImageFolderDataModule(str(root))
    for stage in ("fit", "validate", "test"):
        with pytest.raises(DataError, match=f"{stage} needs labels, and ImageFolderDataModule has none: use predict"):
            data.setup(stage)


def test_damaged_images_are_named_or_skipped(root):
    (root / "ward" / "deep" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 5 images cannot be read.*1\.png"):
        ImageFolderDataModule(str(root)).setup("predict")
    data = ImageFolderDataModule(str(root), size=32, on_unreadable="skip")
    data.setup("predict")
    data.choose_predicted()
    names = [name for batch in data.predict_dataloader() for name in batch["image_id"]]
    data.teardown("predict")
    assert names == [name for name in IDS if name != "ward/deep/1"] and data.unreadable_images == ["ward/deep/1"]


def test_two_images_of_one_name_and_none_at_all_are_errors(root, tmp_path):
    picture(root / "ward" / "1.png")
    with pytest.raises(DataError, match="two files for image '1'"):
        ImageFolderDataModule(str(root)).setup("predict")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no PNG, JPEG or DICOM image in .*empty"):
        ImageFolderDataModule(str(tmp_path / "empty")).setup("predict")
    with pytest.raises(DataError, match="--data.root DIR"):
        ImageFolderDataModule().setup("predict")


def test_a_prepared_copy_gives_the_same_samples(root, tmp_path):
    plain = ImageFolderDataModule(str(root), size=24)
    plain.prepare(tmp_path / "copy", workers=0)
    quick = ImageFolderDataModule(str(root), size=24, prepared=str(tmp_path / "copy"))
    for data in (plain, quick):
        data.setup("predict")
        data.choose_predicted()
    (one,), (other,) = plain.predict_dataloader(), quick.predict_dataloader()
    assert torch.equal(one["image"], other["image"]) and one["source_size"] == other["source_size"] == [(40, 30)] * 5


def test_dicom_files_are_images_with_and_without_a_suffix(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (24, 40), dtype=np.uint16)
    for name in ("a/IM0001", "a/IM0002.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_dicom(tmp_path / name, values)
    data = ImageFolderDataModule(str(tmp_path), size=32)
    data.setup("predict")
    data.choose_predicted()
    (batch,) = data.predict_dataloader()
    assert batch["image_id"] == ["a/IM0001", "a/IM0002"] and batch["source_size"] == [(24, 40), (24, 40)]
    assert torch.equal(batch["image"][0], batch["image"][1])
    assert torch.equal(batch["image"][0], ImageTransform(32)(read_grey(tmp_path / "a" / "IM0002.dcm"))["image"])
