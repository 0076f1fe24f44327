import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fakes import nih_box, write_nih
from PIL import Image

from lightning_chex.data.errors import DataError
from lightning_chex.data.nih import NIHDataModule
from lightning_chex.data.nih_splits import cut_validation, in_tuning_half, official_split
from lightning_chex.data.nih_tables import CHESTXRAY14, read_boxes, read_labels, read_list
from lightning_chex.data.sample import PATHOLOGIES

TABLE, BOXES = "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"
SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path):
    return write_nih(tmp_path / "nih")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def ready(root: Path, **options) -> NIHDataModule:
    data = NIHDataModule(str(root), **{"size": 64, "batch_size": 8, "augment": False, **options})
    data.setup()
    return data


def samples(dataset) -> list[dict]:
    return [dataset[i] for i in range(len(dataset))]


def test_every_pathology_is_in_train_and_validation(root):
    data = ready(root)
    assert [len(data.dataset(split)) for split in SPLITS] == [20, 8, 10]
    assert data.class_names == PATHOLOGIES
    for split in ("train", "val"):
        assert (data.dataset(split).labels.sum(dim=0) > 0).all()
    assert data.pos_weight.shape == (8,) and data.pos_weight.dtype == torch.float32
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 3, 64, 64) and batch["label"].shape == (8, 8)
    assert batch["label"].dtype == torch.float32


def test_labels_say_what_the_image_shows(root):
    for sample in samples(ready(root).dataset("train")):
        for label in range(8):
            x, y, w, h = (value // 16 for value in nih_box(label))
            bright = bool((sample["image"][0, y : y + h, x : x + w] > 1).all())
            assert bright == bool(sample["label"][label])


def test_no_patient_is_in_two_splits_or_in_the_tuning_half_and_the_test(root):
    data = ready(root)
    parts = [*map(data.dataset, SPLITS), data.explained_dataset("validate")]
    patients = [{sample["patient_id"] for sample in samples(part)} for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients))


def test_boxes_show_the_tuning_half_at_validation_and_the_other_at_test(root):
    data = ready(root)
    for stage, tuning in [("validate", True), ("test", False)]:
        explained = samples(data.explained_dataset(stage))
        assert len(explained) == 8
        assert all(in_tuning_half(sample["patient_id"]) is tuning for sample in explained)
        shown = [sample["box_labels"].tolist()[0] for sample in explained]
        assert sorted(shown) == list(range(8))
        assert [s["image_id"] for s in samples(data.explained_dataset(stage))] == [s["image_id"] for s in explained]
    # the unboxed second image of a tuning patient is nowhere
    used = {sample["image_id"] for split in SPLITS for sample in samples(data.dataset(split))}
    assert not [name for name in used if in_tuning_half(name[:8].lstrip("0")) and name.endswith("_001")]


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("side", [64, 128])
def test_boxes_enclose_the_drawn_rectangles(tmp_path, side, size):
    data = ready(write_nih(tmp_path / "nih", size=side), size=size)
    counts = []
    for sample in samples(data.explained_dataset("validate")):
        counts.append(len(sample["boxes"]))
        for box, label in zip(sample["boxes"], sample["box_labels"], strict=True):
            assert sample["label"][label] == 1
            x, y, w, h = nih_box(int(label))
            np.testing.assert_allclose(box, np.array([x, y, x + w, y + h]) * size / 1024, rtol=1e-5)
            x1, y1, x2, y2 = (round(float(value)) for value in box)
            grey = (sample["image"][0] * 0.229 + 0.485) * 255
            assert (grey[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] > 190).all()  # the edge itself may be blurred
            outside = [grey[y1 - 2, x1:x2], grey[y2 + 1, x1:x2], grey[y1:y2, x1 - 2], grey[y1:y2, x2 + 1]]
            assert (torch.cat(outside) < 90).all()
    assert sorted(counts) == [1] * 7 + [2]  # one image with two boxes


def test_images_without_boxes_have_none(root):
    for sample in samples(ready(root).dataset("train")):
        assert sample["boxes"].shape == (0, 4) and sample["box_labels"].shape == (0,)


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [("images", ".png"), ("images", ".jpg"), ("images_012", ".PNG"), ("images_003/images", ".jpeg")],
)
def test_every_layout_of_the_image_folders_is_found(tmp_path, folder, suffix):
    assert len(ready(write_nih(tmp_path / "nih", folder=folder, suffix=suffix)).dataset("train")) == 20


def test_the_older_name_of_the_label_table_is_found(root):
    (root / TABLE).rename(root / "Data_Entry_2017.csv")
    ready(root)


def test_the_halves_follow_the_published_rule():
    for patient in map(str, range(1, 200)):
        assert in_tuning_half(patient) == (int(hashlib.sha256(patient.encode()).hexdigest()[:2], 16) % 2 == 0)


def test_the_halves_do_not_depend_on_what_is_on_disk(root):
    everything = {sample["image_id"] for sample in samples(ready(root).explained_dataset("validate"))}
    gone = sorted(everything)[0]
    (root / "images_001/images" / f"{gone}.png").unlink()
    with pytest.warns(UserWarning, match=f"1 of the 47 images .*{gone}.*allow_missing"):
        data = ready(root, allow_missing=True)
    assert {sample["image_id"] for sample in samples(data.explained_dataset("validate"))} == everything - {gone}


def test_without_box_images_there_is_nothing_to_explain(root):
    edit(root / BOXES, (root / BOXES).read_text(), "Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    data = ready(root)
    assert len(data.explained_dataset("validate")) == len(data.explained_dataset("test")) == 0
    assert len(data.dataset("test")) == 19


def test_the_validation_cut_depends_on_the_seed_and_on_nothing_else():
    rng = np.random.default_rng(0)
    patients = pd.Series(rng.integers(0, 300, 1000).astype(str))
    labels = (rng.random((1000, 8)) < 0.05).astype(np.float32)
    first = cut_validation(patients, labels, 0.2, seed=1)
    assert abs(first.mean() - 0.2) < 0.02
    shuffle = rng.permutation(1000)
    again = cut_validation(patients[shuffle], labels[shuffle], 0.2, seed=1)
    np.testing.assert_array_equal(first[shuffle], again)
    assert (first != cut_validation(patients, labels, 0.2, seed=2)).any()
    assert not set(patients[first]) & set(patients[~first])


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_class_is_on_both_sides_and_a_unique_one_in_train(seed):
    patients = pd.Series([str(i) for i in range(50)])
    labels = np.zeros((50, 3))
    labels[7, 0] = labels[8, 0] = labels[20, 1] = labels[30:, 2] = 1
    val = cut_validation(patients, labels, 0.1, seed)
    assert labels[val, 0].sum() == labels[~val, 0].sum() == 1
    assert labels[val, 1].sum() == 0
    assert 0 < labels[val, 2].sum() < 20


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda r: edit(r / TABLE, "Finding Labels", "Findings"),
            "no column 'Finding Labels', only 'Image Index', 'Findings'",
        ),
        (lambda r: edit(r / TABLE, (t := (r / TABLE).read_text()), t.replace(",", ";")), "separated by ';'"),
        (lambda r: (r / TABLE).write_text(""), "cannot read .*No columns"),
        (lambda r: (r / TABLE).write_text("Image Index,Finding Labels,Patient ID\n"), "no rows"),
        (lambda r: (r / TABLE).write_bytes(b"\xff\xfe\x00\x01"), "cannot read"),
        (lambda r: edit(r / TABLE, "Atelectasis", "Atelektase"), "does not know: 'Atelektase'"),
        (lambda r: edit(r / TABLE, "Atelectasis", ""), "1 rows without 'Finding Labels', the first in line 2"),
        (lambda r: edit(r / TABLE, "00000002_000", "00000001_000"), "more than one row for 1 images: 00000001_000"),
        (lambda r: edit(r / TABLE, "00000002_000", "../../00000002_000"), "not the bare file name"),
        (lambda r: (r / TABLE).unlink(), "no Data_Entry_2017_v2020.csv or Data_Entry_2017.csv in .*BBox_List"),
        (lambda r: (r / "test_list.txt").unlink(), "no test_list.txt in "),
        (lambda r: edit(r / "train_val_list.txt", "00000001_000", "/etc/passwd"), "not the bare file name"),
        (
            lambda r: edit(r / "train_val_list.txt", "00000001_000", "00099999_000"),
            "no row in the label table: 00099999_000",
        ),
        (
            lambda r: edit(r / "train_val_list.txt", "00000001_000", "00000900_000"),
            "in train_val_list.txt and test_list.txt: 00000900",
        ),
        (lambda r: edit(r / TABLE, "No Finding,0,900", "No Finding,0,1"), "1 patients are in .*: 1; with one patient"),
        (lambda r: (r / BOXES).unlink(), "no BBox_List_2017.csv"),
        (lambda r: (r / BOXES).write_text(""), "should begin with 'Image Index,Finding Label"),
        (
            lambda r: edit(r / BOXES, "Atelectasis,64.0,128.0,176.0", "Atelectasis,64.0,128.0,-176.0"),
            "without area or outside .*-176.0",
        ),
        (
            lambda r: edit(r / BOXES, "Atelectasis,64.0", "Atelectasis,900.0"),
            "1 boxes .* 1024 x 1024 image.* 900.0, 128.0",
        ),
        (lambda r: edit(r / BOXES, "Atelectasis,64.0", "Atelectasis,here"), "1 boxes .* here, 128.0"),
        (lambda r: edit(r / BOXES, "Atelectasis", "Atelektase"), "unknown classes: Atelektase"),
        (
            lambda r: edit(r / BOXES, ",,,\n", ",,,\n00099999_000.png,Mass,1,1,9,9\n"),
            "the box list have no row .*00099999",
        ),
        (
            lambda r: edit(r / BOXES, ",,,\n", ",,,\n00000001_000.png,Mass,1,1,9,9\n"),
            "with expert boxes are in train_val_list.txt: 00000001",
        ),
        (
            lambda r: (r / "images_001/images/00000001_000.png").unlink(),
            "1 of the 47 images .*00000001_000; .*allow_missing: true",
        ),
        (
            lambda r: (r / "images_001/images/00000001_000.png").write_bytes(b""),
            r"1 of 47 images .*00000001_000.png \(empty\)",
        ),
        (lambda r: (r / "images_001").rename(r / "pictures"), r"no folder images, .* which holds .*pictures"),
        (lambda r: [p.unlink() for p in r.glob("images_001/images/*")], "47 of the 47 images .*correct root"),
    ],
)
def test_bad_files_are_told_before_training(root, spoil, message):
    spoil(root)
    with pytest.raises(DataError, match=message):
        ready(root)


def test_a_root_that_is_not_there_or_no_folder_is_named(tmp_path, root):
    for path, message in [(tmp_path / "nowhere", "does not exist"), (root / TABLE, "is a file")]:
        with pytest.raises(DataError, match=f"root is '{path}', which {message}"):
            ready(path)


def test_all_images_missing_is_an_error_even_where_some_may_be(root):
    for path in root.glob("images_001/images/*"):
        path.unlink()
    with pytest.raises(DataError, match="47 of the 47"):
        ready(root, allow_missing=True)


def test_a_cropped_image_with_boxes_is_refused(root):
    name = (root / BOXES).read_text().split("\n")[1].split(",")[0]
    Image.new("L", (64, 50)).save(root / "images_001/images" / name)
    with pytest.raises(DataError, match=rf"{name} \(64 x 50\)"):
        ready(root)


def test_images_in_no_list_are_left_out_with_a_warning(root):
    lines = (root / "train_val_list.txt").read_text().split("\n")
    (root / "train_val_list.txt").write_text("\n".join(lines[1:]))
    with pytest.warns(UserWarning, match="1 images of the label table are in no list"):
        assert len(ready(root).dataset("train")) == 19


@pytest.mark.parametrize("fraction", [0, 1, -0.5])
def test_a_wrong_fraction_is_named(fraction):
    with pytest.raises(ValueError, match="val_fraction"):
        NIHDataModule("nowhere", val_fraction=fraction)


@pytest.mark.real_data
def test_real_images_and_boxes_are_counted_right(chex_data):
    data = ready(chex_data / "nih_chestxray8")
    train, val, test = map(data.dataset, SPLITS)
    assert len(train) + len(val) == 1355
    assert (val.labels.sum(dim=0) > 0).all()
    tuning, reporting = data.explained_dataset("validate"), data.explained_dataset("test")
    assert len(tuning) + len(reporting) == 544
    boxed = [*samples(tuning), *samples(reporting)]
    assert sum(len(sample["boxes"]) for sample in boxed) == 618
    boxes = torch.cat([sample["boxes"] for sample in boxed])
    assert (boxes >= 0).all() and (boxes <= 64).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(set(data._images["image_id"])) == 2043
    patients = [set(part.patient_ids) for part in (train, val, test, tuning.dataset)]
    assert sum(map(len, patients)) == len(set.union(*patients))


@pytest.mark.real_data
def test_the_full_table_splits_without_sharing_a_patient(chex_data):
    full = chex_data / "nih_chestxray8_labels_full"
    labels = read_labels(full / "Data_Entry_2017_v2020.csv.gz")
    boxes = read_boxes(chex_data / "nih_chestxray8" / BOXES)
    images, kept = official_split(
        labels, read_list(full / "train_val_list.txt"), read_list(full / "test_list.txt"), boxes
    )
    counts = images["split"].value_counts()
    assert len(images) == 112_120 and counts["train_val"] == 86_524 and counts["test"] + counts["tuning"] == 25_596
    assert len(kept) == 618
    assert images.groupby("patient_id")["split"].nunique().max() == 1

    pool = images[images["split"] == "train_val"]
    matrix = pool[list(PATHOLOGIES)].to_numpy()
    val = cut_validation(pool["patient_id"], matrix, 0.1, seed=0)
    assert abs(val.mean() - 0.1) < 0.002
    assert not set(pool["patient_id"][val]) & set(pool["patient_id"][~val])
    np.testing.assert_allclose(matrix[val].mean(axis=0), matrix[~val].mean(axis=0), rtol=0.3)
