import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import nih_box, write_nih
from PIL import Image

from lightning_chex.data import PATHOLOGIES, DataError, NIHDataModule
from lightning_chex.data.sets.nih_splits import in_tuning_half, official_split
from lightning_chex.data.sets.nih_tables import CHESTXRAY14, read_boxes, read_labels, read_list
from lightning_chex.data.splits import draw_validation

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
    [
        ("images", ".png"),
        ("images", ".jpg"),
        ("images_012", ".PNG"),
        ("images_003/images", ".jpeg"),
        ("sample/images", ".png"),
    ],
)
def test_every_layout_of_the_image_folders_is_found(tmp_path, folder, suffix):
    assert len(ready(write_nih(tmp_path / "nih", folder=folder, suffix=suffix)).dataset("train")) == 20


def test_the_publishers_twelve_folders_are_one_data_set(root):
    flat = ready(root)
    first = {split: flat.dataset(split)[0]["image"] for split in SPLITS}
    for i, path in enumerate(sorted((root / "images_001/images").iterdir())):
        folder = root / f"images_{1 + i % 12:03d}" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    spread = ready(root)
    for split in SPLITS:
        assert spread.dataset(split).image_ids == flat.dataset(split).image_ids
        assert torch.equal(spread.dataset(split)[0]["image"], first[split])
    assert len({Path(path).parent for split in SPLITS for path in spread.dataset(split).paths}) == 12


def test_one_archive_of_twelve_works_if_allowed_and_says_what_is_left_out(root):
    names = sorted(path.name for path in (root / "images_001/images").iterdir())
    for name in names[20:]:
        (root / "images_001/images" / name).unlink()
    for name in names[-2:]:  # two test images are on disk
        Image.new("L", (64, 64)).save(root / "images_001/images" / name)
    with pytest.warns(UserWarning, match=r"25 of the 47 images .*\(9 tuning, 8 \w+, 8 \w+\).*left out"):
        data = ready(root, allow_missing=True)
    assert len(data.dataset("train")) + len(data.dataset("val")) == 20 and len(data.dataset("test")) == 2


ROWS = {
    "Data_Entry_2017.csv": (  # of 2017: a comma ends each line
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
        "00000001_000.png,Effusion|Hernia,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
    ),
    "Data_Entry_2017_v2020.csv": (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
        "00000001_000.png,Effusion|Hernia,0,1,57,M,PA,2682,2749,0.143,0.143",
    ),
    "sample_labels.csv": (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y",
        "00000001_000.png,Effusion|Hernia,000,00001,060Y,M,PA,2682,2749,0.143,0.143",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_every_published_label_table_is_read(tmp_path, name, packed):
    text = "\n".join(ROWS[name]) + "\n"
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    (row,) = read_labels(path).to_dict("records")
    assert (row.pop("image_id"), row.pop("patient_id")) == ("00000001_000", "1")
    years = {"Data_Entry_2017.csv": 58, "Data_Entry_2017_v2020.csv": 57, "sample_labels.csv": 60}[name]
    assert (row.pop("age"), row.pop("sex"), row.pop("view")) == (years, "M", "PA")
    assert [name for name, present in row.items() if present] == ["Effusion", "Hernia"] and len(row) == 14


@pytest.mark.parametrize("name", ["Data_Entry_2017.csv", "Data_Entry_2017.csv.gz", "Data_Entry_2017_v2020.csv.gz"])
def test_the_label_table_is_found_under_all_its_names(root, name):
    text = (root / TABLE).read_bytes()
    (root / TABLE).unlink()
    (root / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert len(ready(root).dataset("train")) == 20


def make_sample(root: Path, lists: bool) -> None:
    """Turn a data set into what the "sample" is: its own name of the table, no boxes, and perhaps the full lists."""
    (root / "sample").mkdir()
    (root / TABLE).rename(root / "sample_labels.csv")
    (root / "images_001/images").rename(root / "sample/images")
    (root / BOXES).unlink()
    for side in ("train_val", "test"):
        path = root / f"{side}_list.txt"
        if lists:  # of the whole data set, of which the sample is a part
            path.write_text(path.read_text() + f"\n00088888_00{len(side)}.png")
        else:
            path.unlink()


def test_the_sample_without_lists_is_split_by_patient_under_a_fixed_rule(root):
    make_sample(root, lists=False)
    with pytest.warns(UserWarning, match="no official split.*test_list.txt beside it"):
        data = ready(root)
    tested = set(data.dataset("test").patient_ids)
    everybody = set.union(*(set(data.dataset(split).patient_ids) for split in SPLITS))
    rule = {name for name in everybody if int.from_bytes(hashlib.sha256(name.encode()).digest()) % 5 == 0}
    assert tested == rule and 0 < len(tested) < len(everybody) / 2
    assert sum(len(data.dataset(split)) for split in SPLITS) == 47
    assert not set(data.dataset("train").patient_ids) & set(data.dataset("val").patient_ids)
    assert len(data.explained_dataset("validate")) == 0


def test_the_sample_with_boxes_never_trains_on_their_patients(root):
    boxes = (root / BOXES).read_text()
    make_sample(root, lists=False)
    (root / BOXES).write_text(boxes + "00077777_000.png,Mass,1,1,9,9\n")  # of an image the sample lacks
    with pytest.warns(UserWarning, match="no official split"):
        data = ready(root)
    boxed = [*samples(data.explained_dataset("validate")), *samples(data.explained_dataset("test"))]
    assert sum(len(sample["boxes"]) for sample in boxed) == 17
    used = {*data.dataset("train").patient_ids, *data.dataset("val").patient_ids}
    assert not used & {sample["patient_id"] for sample in boxed}


def test_the_sample_keeps_its_official_sides_where_the_lists_are_beside_it(root):
    official = {split: ready(root).dataset(split).image_ids for split in ("train", "val")}
    make_sample(root, lists=True)
    data = ready(root)
    assert {split: data.dataset(split).image_ids for split in ("train", "val")} == official
    assert len(data.dataset("test")) == 19  # without boxes nobody is in the tuning half
    (root / "test_list.txt").unlink()
    with pytest.raises(DataError, match="no test_list.txt"):
        ready(root)


def test_fourteen_classes_and_any_few_in_the_order_given(root):
    edit(root / TABLE, "00000001_000.png,Atelectasis", "00000001_000.png,Hernia|Atelectasis")
    eight, fourteen = ready(root), ready(root, classes="chestxray14")
    assert eight.class_names == PATHOLOGIES and fourteen.class_names == CHESTXRAY14 and len(CHESTXRAY14) == 14
    chosen = ["Hernia", "Mass", "Atelectasis"]
    few = ready(root, classes=chosen)
    assert few.class_names == tuple(chosen)
    for split in SPLITS:  # the same images whatever is asked of them
        assert eight.dataset(split).image_ids == fourteen.dataset(split).image_ids == few.dataset(split).image_ids
        full = fourteen.dataset(split).labels
        assert torch.equal(full[:, :8], eight.dataset(split).labels)
        columns = [CHESTXRAY14.index(name) for name in chosen]
        assert torch.equal(full[:, columns], few.dataset(split).labels)
    assert few.dataset("train").labels[:, 0].sum() + few.dataset("val").labels[:, 0].sum() == 1


def test_boxes_of_classes_not_asked_for_are_ignored(root):
    few = ready(root, classes=["Hernia", "Effusion", "Atelectasis"])
    explained = samples(few.explained_dataset("validate"))
    labels = [label for sample in explained for label in sample["box_labels"].tolist()]
    assert sorted(labels) == [1, 2] and len(explained) == 2
    for sample in explained:
        for box, label in zip(sample["boxes"], sample["box_labels"], strict=True):
            x, y, w, h = nih_box({1: PATHOLOGIES.index("Effusion"), 2: 0}[int(label)])
            np.testing.assert_allclose(box, np.array([x, y, x + w, y + h]) / 16, rtol=1e-5)
    assert len(ready(root, classes=["Hernia"]).explained_dataset("validate")) == 0
    # who is in which half is a matter of all boxes
    assert few.dataset("test").image_ids == ready(root).dataset("test").image_ids


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("chestxray9", "classes is 'chestxray9': give chestxray8 or chestxray14"),
        (["Mass", "Covid"], "classes names 'Covid': choose from Atelectasis, .*Hernia"),
        (["Mass", "Mass"], "each once"),
        ([], "at least one name"),
    ],
)
def test_wrong_classes_are_named(classes, message):
    with pytest.raises(ValueError, match=message):
        NIHDataModule("nowhere", classes=classes)


def test_colour_and_transparency_among_the_grey_images_change_nothing(root):
    before = samples(ready(root).dataset("train"))
    for i, path in enumerate(sorted((root / "images_001/images").iterdir())):
        image = Image.open(path)
        image.convert(["RGBA", "RGB", "L"][i % 3]).save(path)
    after = samples(ready(root).dataset("train"))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(after, before, strict=True))


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


def test_all_images_missing_is_an_error_even_where_some_may_be(root):
    for path in root.glob("images_001/images/*"):
        path.unlink()
    with pytest.raises(DataError, match="47 of the 47"):
        ready(root, allow_missing=True)


def test_a_partial_copy_moves_nobody_to_another_side(root):
    sides = {split: set(ready(root).dataset(split).image_ids) for split in ("train", "val", "test")}
    gone = sorted(root.glob("images_001/images/*"))[::5]
    for path in gone:
        path.unlink()
    with pytest.warns(UserWarning, match=f"{len(gone)} of the 47"):
        partial = ready(root, allow_missing=True)
        partial.dataset("train")
    missing = {path.stem for path in gone}
    assert missing & sides["train"] and missing & sides["test"]
    for split, before in sides.items():
        assert set(partial.dataset(split).image_ids) == before - missing


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
    assert {name: int(labels[name].sum()) for name in ("Infiltration", "Hernia")} == counted(
        full, "Infiltration", "Hernia"
    )
    images, kept = official_split(
        labels, read_list(full / "train_val_list.txt"), read_list(full / "test_list.txt"), boxes
    )
    counts = images["split"].value_counts()
    assert len(images) == 112_120 and counts["train_val"] == 86_524 and counts["test"] + counts["tuning"] == 25_596
    assert len(kept) == 618
    assert images.groupby("patient_id")["split"].nunique().max() == 1

    pool = images[images["split"] == "train_val"]
    matrix = pool[list(CHESTXRAY14)].to_numpy()
    val = draw_validation(pool["patient_id"], matrix, 0.1, seed=0)
    assert abs(val.mean() - 0.1) < 0.002
    assert not set(pool["patient_id"][val]) & set(pool["patient_id"][~val])
    np.testing.assert_allclose(matrix[val].mean(axis=0)[:13], matrix[~val].mean(axis=0)[:13], rtol=0.3)
    assert matrix[val, 13].sum() >= 3  # 227 images show a hernia
    boxed = set(kept["image_id"])
    side = images.set_index("image_id")["split"]
    assert {side[name] for name in boxed} == {"test", "tuning"}


def counted(folder: Path, *findings: str) -> dict[str, int]:
    """Count rows of the full table as a search for words does."""
    lines = gzip.decompress((folder / "Data_Entry_2017_v2020.csv.gz").read_bytes()).decode().splitlines()
    return {name: sum(name in line.split(",")[1].split("|") for line in lines) for name in findings}
