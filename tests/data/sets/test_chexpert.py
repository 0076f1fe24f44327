"""CheXpert and CheXlocalize in their publishers' layout: paths of another root, empty and uncertain labels, RLE."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_chex.cli.main import main
from lightning_chex.data import CheXpertDataModule, DataError

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
         "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
         "Fracture", "Support Devices"]  # fmt: skip
FIVE = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
CELLS = ["1.0", "0.0", "-1.0", ""]


def cell(patient: int, k: int) -> str:
    return CELLS[(patient + patient // 4 * k + k) % 4]


def coco(mask: np.ndarray) -> str:
    """COCO's text of a small mask, whose numbers take one or two letters each."""
    pixels = [0, *mask.T.ravel().astype(int).tolist()]
    runs, count = [], 0
    for before, pixel in zip(pixels, pixels[1:], strict=False):
        if pixel != before:
            runs.append(count)
            count = 0
        count += 1
    runs.append(count)
    steps = runs[:3] + [own - back for own, back in zip(runs[3:], runs[1:], strict=False)]
    return "".join(map(letters, steps))


def letters(step: int) -> str:
    assert -512 <= step < 512
    if -16 <= step < 16:
        return chr(48 + step % 32)
    return chr(80 + step % 32) + chr(48 + (step >> 5) % 32)


def block(height: int, width: int, top: int, left: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + 2, left : left + 3] = True
    return mask


def picture(path, value, shape=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


def write_chexpert(folder):
    """Twelve training patients with a frontal and a lateral image, two of valid.csv, two of the test."""
    root = folder / "CheXpert-v1.0-small"
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *NAMES]
    for table, split, patients in (("train", "train", range(1, 13)), ("valid", "valid", range(101, 103))):
        lines = [",".join(header)]
        for n in patients:
            for view, kind, ap in (("view1_frontal", "Frontal", "AP"), ("view2_lateral", "Lateral", "")):
                path = f"{split}/patient{n:05d}/study1/{view}.jpg"
                picture(root / path, n)
                own = [cell(n, k) for k in range(14)] if split == "train" else [f"{(n + k) % 2}.0" for k in range(14)]
                lines.append(",".join([f"CheXpert-v1.0-small/{path}", "Female", str(30 + n), kind, ap, *own]))
        (root / f"{table}.csv").write_text("\n".join(lines) + "\n")
    order = NAMES[::-1]  # the test's table has another order, and no sex, age or view
    lines = [",".join(["Path", *order])]
    for n in (201, 202):
        path = f"test/patient{n:05d}/study1/view1_frontal.jpg"
        picture(root / "CheXpert" / path, n)
        lines.append(",".join([f"CheXpert-v1.0/{path}", *[str(float(n == 201 and name in FIVE)) for name in order]]))
    (root / "CheXpert" / "test_labels.csv").write_text("\n".join(lines) + "\n")
    empty = {"size": [8, 10], "counts": letters(80)}
    masks = {"Airspace Opacity": {"size": [8, 10], "counts": coco(block(8, 10, 4, 2))}, "Edema": empty}
    (root / "CheXlocalize").mkdir()
    (root / "CheXlocalize" / "gt_segmentations_test.json").write_text(
        json.dumps({"patient00201_study1_view1_frontal": masks, "patient00202_study1_view1_frontal": {"Edema": empty}})
    )
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_chexpert(tmp_path_factory.mktemp("chexpert"))


def labels_of(data):
    data.look()
    return {
        split: {name: row for name, row in zip(part.image_ids, part.labels.tolist(), strict=True)}
        for split, part in data.parts().items()
    }


def test_labels_and_splits_are_the_publishers(root):
    data = CheXpertDataModule(str(root), size=32, classes="all", uncertain="positive", missing="negative")
    found = labels_of(data)
    value = {"1.0": 1.0, "0.0": 0.0, "-1.0": 1.0, "": 0.0}
    assert found["train"] == {
        f"patient{n:05d}/study1/view1_frontal": [value[cell(n, k)] for k in range(14)] for n in range(1, 13)
    }
    assert found["val"] == {
        f"patient{n:05d}/study1/view1_frontal": [(n + k) % 2 for k in range(14)] for n in (101, 102)
    }
    assert found["test"] == {
        f"patient{n:05d}/study1/view1_frontal": [float(n == 201 and name in FIVE) for name in NAMES] for n in (201, 202)
    }
    assert set(data.parts()["train"].patient_ids) == {f"patient{n:05d}" for n in range(1, 13)}
    assert data.parts()["train"][0]["subgroups"] == {"sex": "F", "age": "18-39", "view": "FRONTAL"}


def test_classes_views_and_unknown_labels_can_be_chosen(root):
    data = CheXpertDataModule(str(root.parent), size=32, view=["Lateral"], missing="ignore")
    train = labels_of(data)["train"]
    assert data.class_names == tuple(FIVE)
    expected = {"1.0": 1.0, "0.0": 0.0, "-1.0": np.nan, "": np.nan}
    wanted = {
        f"patient{n:05d}/study1/view2_lateral": [expected[cell(n, NAMES.index(name))] for name in FIVE]
        for n in range(1, 13)
    }
    known = {name: row for name, row in wanted.items() if not np.isnan(row).all()}
    assert train.keys() == known.keys() and len(known) > 0
    assert all(np.array_equal(train[name], known[name], equal_nan=True) for name in known)
    with pytest.raises(ValueError, match="classes is 'five': give competition, all, or some of No Finding"):
        CheXpertDataModule(str(root), classes="five")


def test_valid_serves_as_test_where_that_is_asked_for(root):
    found = labels_of(CheXpertDataModule(str(root), size=32, official_valid="test", val_fraction=0.25))
    assert {name[:12] for name in found["test"]} == {f"patient{n:05d}" for n in (101, 102, 201, 202)}
    assert len(found["val"]) == 3 and len(found["train"]) == 9


def test_masks_of_chexlocalize_lie_where_they_were_drawn(root):
    data = CheXpertDataModule(str(root), size=32, classes=["Edema", "Lung Opacity"])
    data.setup()
    explained = data.explained_dataset("test")
    assert [explained[i]["image_id"] for i in range(len(explained))] == ["patient00201/study1/view1_frontal"]
    masks = explained[0]["finding_masks"]
    assert masks.shape == (2, 32, 32) and not masks[0].any()
    # 8 x 10 pixels become 25.6 x 32 in a frame of 32, padded by 3.2 above
    rows, columns = masks[1].nonzero(as_tuple=True)
    assert torch.allclose(torch.tensor([rows.min(), rows.max()]).float(), torch.tensor([16.0, 21.0]), atol=1)
    assert torch.allclose(torch.tensor([columns.min(), columns.max()]).float(), torch.tensor([6.4, 15.0]), atol=1)


def test_missing_and_wrong_files_are_named(tmp_path):
    root = write_chexpert(tmp_path)
    place = root / "CheXlocalize" / "gt_segmentations_test.json"
    for text, reason in [
        ('{"patient00201_study1_view1_frontal": {"Edema": {"size": [8, 10]}}}', "does not hold .*KeyError"),
        ('{"patient00201_study1_view1_frontal": {"Edema": {"size": [8, 9], "counts": "2"}}}', "_frontal, Edema.*9 x 8"),
        ('{"patient00999_study1_view1_frontal": {"Edema": {"size": [1, 1], "counts": "1"}}}', "does not name.*00999"),
        ("{", "cannot read .*gt_segmentations_test.json as JSON"),
    ]:
        place.write_text(text)
        with pytest.raises(DataError, match=reason):
            CheXpertDataModule(str(root)).look()
    place.unlink()
    (root / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"no valid.csv or val_labels.csv in .*-small, which holds CheXlocalize, CheX"):
        CheXpertDataModule(str(root)).look()
    found = labels_of(CheXpertDataModule(str(root), allow_missing=True, val_fraction=0.25))
    assert {split: len(part) for split, part in found.items()} == {"train": 9, "val": 3, "test": 2}
    (root / "train.csv").write_text((root / "train.csv").read_text().replace("Edema", "Oedema"))
    with pytest.raises(DataError, match="train.csv has no column 'Edema', which its publisher gives it; it has 'Path'"):
        CheXpertDataModule(str(root), allow_missing=True).look()


def test_inspect_through_the_command_line(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["inspect", "--data", "CheXpertDataModule", "--data.root", str(root), "--write_config", "mine.yaml"])
    said = capsys.readouterr().out
    assert "CheXpertDataModule: 16 images of 16 patients" in said and "Pleural Effusion" in said
    main(["inspect", "--config", "mine.yaml", "--output_dir", "again"])
    assert "CheXpertDataModule: 16 images of 16 patients" in capsys.readouterr().out
