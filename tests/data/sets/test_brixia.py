from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fakes_brixia import write_brixia
from PIL import Image

from lightning_chex.data import DETECTORS, BrixIADataModule, DataError
from lightning_chex.data.sets.brixia import read_metadata, split_by_subject
from lightning_chex.data.sets.brixia_scores import ZONES

TABLE = "metadata_global_v2.csv"
SPLITS = ("train", "val", "test")

pytestmark = pytest.mark.filterwarnings("ignore:.*subjects of the consensus test set")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data set that nobody changes."""
    return write_brixia(tmp_path_factory.mktemp("source"))


@pytest.fixture
def root(tmp_path):
    return write_brixia(tmp_path / "brixia", subjects=6)


def ready(root: Path, **options) -> BrixIADataModule:
    small = {"size": 32, "batch_size": 4, "augment": False, "val_fraction": 0.4}
    data = BrixIADataModule(str(root), **(small | options))
    data.setup()
    return data


def samples(data: BrixIADataModule) -> list[dict]:
    return [dataset[i] for dataset in map(data.dataset, SPLITS) for i in range(len(dataset))]


def edit(root: Path, old: str, new: str) -> None:
    content = (root / TABLE).read_bytes()
    assert old.encode() in content
    (root / TABLE).write_bytes(content.replace(old.encode(), new.encode(), 1))


def table_of(root: Path) -> pd.DataFrame:
    """The table, read in the plainest way."""
    lines = (root / TABLE).read_text(encoding="utf-8-sig").split("\n")
    header, *rows = [line.strip().split(";") for line in lines if line.strip()]
    return pd.DataFrame(rows, columns=header)


@pytest.mark.parametrize(
    ("target", "shape", "names"),
    [("severity", (), ((), ("severity",))), ("zones", (6,), ((), ZONES)), ("detectors", (3,), (DETECTORS, ()))],
)
def test_labels_are_those_of_the_table(source, target, shape, names):
    data = ready(source, target=target)
    assert (data.class_names, data.score_names) == names
    table = table_of(source).set_index("Filename")
    out = samples(data)
    assert len(out) == 27 and len({sample["image_id"] for sample in out}) == 27
    for sample in out:
        row = table.loc[f"{sample['image_id']}.dcm"]
        zones = [int(digit) for digit in row["BrixiaScore"]]
        label = {
            "severity": int(row["BrixiaScoreGlobal"]),
            "zones": zones,
            "detectors": [min(zones) <= 1, 2 in zones, 3 in zones],
        }[target]
        assert sample["label"].shape == shape and sample["label"].dtype == torch.float32
        assert sample["label"].tolist() == label and sample["zones"].tolist() == zones
        assert sample["patient_id"] == row["Subject"] and sample["boxes"].shape == (0, 4)


def test_zones_lie_where_they_are_drawn_in_both_polarities_and_compressions(source):
    for sample in samples(ready(source, size=40)):
        for zone, score in enumerate(sample["zones"].tolist()):
            y = (1 + 2 * (zone % 3)) * 5 + 2
            x = 5 + (1 if zone < 3 else 5) * 30 // 8 + 3  # black borders of 5 pixels make a square
            grey = (sample["image"][0, y, x] * 0.229 + 0.485) * 255
            assert float(grey) == pytest.approx((800 + 800 * score) / 4095 * 255, abs=1)


def test_the_consensus_set_is_the_test_set_and_its_subjects_are_nowhere_else(source):
    with pytest.warns(UserWarning, match="3 images show subjects of the consensus test set and are left out"):
        data = ready(source)
    table = table_of(source)
    consensus = table[table["ConsensusTestset"] == "1"]
    assert [f"{name}.dcm" for name in data.dataset("test").image_ids] == consensus["Filename"].tolist()
    subjects = [set(data.dataset(split).patient_ids) for split in SPLITS]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 15
    assert subjects[2] == {"P0000", "P0001", "P0002"} and len(subjects[1]) >= 1


def test_the_split_depends_on_the_seed_alone(source, tmp_path):
    sides = [[ready(source, target=t).dataset(s).image_ids for s in SPLITS] for t in ("severity", "zones", "detectors")]
    assert sides[0] == sides[1] == sides[2]
    metadata = read_metadata(source / TABLE)
    split = split_by_subject(metadata, 0.3, 0)["split"]
    shuffled = split_by_subject(metadata.sample(frac=1, random_state=1), 0.3, 0)["split"]
    assert shuffled.sort_index().equals(split)
    assert not split_by_subject(metadata, 0.3, 1)["split"].equals(split)


def test_a_partial_copy_works_if_allowed_and_moves_nobody(root):
    whole = {split: ready(root).dataset(split).image_ids for split in SPLITS}
    gone = whole["train"][0]
    (root / "dicom_clean" / f"{gone}.dcm").unlink()
    with pytest.raises(DataError, match=rf"1 of the 9 images .* are not in .*dicom_clean: {gone}; .*allow_missing"):
        ready(root)
    with pytest.warns(UserWarning, match="1 of the 9 images"):
        data = ready(root, allow_missing=True)
    assert {split: data.dataset(split).image_ids for split in SPLITS} == {**whole, "train": whole["train"][1:]}


@pytest.mark.parametrize("folder", ["dicom_clean", "dicom", "data", "."])
def test_images_lie_in_a_folder_or_beside_the_table(tmp_path, folder):
    assert len(samples(ready(write_brixia(tmp_path, folder=folder, subjects=6)))) == 9


def test_copies_in_another_format_are_found_by_their_stem(root):
    for path in (root / "dicom_clean").iterdir():
        path.unlink()
        Image.fromarray(np.full((40, 30), 99, dtype=np.uint8)).save(path.with_suffix(".png"))
    assert len(samples(ready(root))) == 9


FIRST, SECOND = "7000000000000000000.dcm", "7000000000000000001.dcm"


def score_of(root: Path, name: str) -> tuple[str, str]:
    row = table_of(root).set_index("Filename").loc[name]
    return row["BrixiaScore"], row["BrixiaScoreGlobal"]


def set_score(digits: str, total: str | None = None):
    """Give the second image another score."""

    def spoil(root: Path) -> None:
        old = ";".join(score_of(root, SECOND))
        lines = (root / TABLE).read_bytes().split(b"\r\n")
        lines[2] = lines[2].replace(old.encode(), f"{digits};{total or old.split(';')[1]}".encode())
        (root / TABLE).write_bytes(b"\r\n".join(lines))

    return spoil


def commas(root: Path) -> None:
    (root / TABLE).write_bytes((root / TABLE).read_bytes().replace(b";", b","))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (set_score("000004", "4"), f"{SECOND[:-4]} is '000004', but six zones have a digit from 0 to 3 each"),
        (set_score("0" * 17, "0"), "is '00000000000000000', but six zones"),
        (set_score("12"), "is '12', but six zones .* leading zeros"),
        (set_score("00a000"), "is '00a000'"),
        (set_score("00٣000", "3"), "is '00٣000'"),  # a digit, but not one of ours
        (set_score(""), "1 rows without 'BrixiaScore', the first in line 3"),
        (set_score("111111", "7"), "BrixiaScoreGlobal of .* is '7', but the zones 111111 add up to 6"),
        (set_score("111111", "six"), "BrixiaScoreGlobal of .* is 'six', but the zones 111111 add up to 6"),
        (lambda r: edit(r, ";1;P0000", ";yes;P0000"), "ConsensusTestset of .* is 'yes', but can only be 0 or 1"),
        (lambda r: edit(r, SECOND, FIRST), f"more than one row for 1 images: {FIRST[:-4]}"),
        (lambda r: edit(r, SECOND, "../x.dcm"), "'../x.dcm' is not the bare file name"),
        (lambda r: edit(r, SECOND, "/etc/x.dcm"), "'/etc/x.dcm' is not the bare file name"),
        (commas, "looks separated by ',', expected is ';'"),
        (lambda r: edit(r, "Subject", "Person"), "no column 'Subject', only 'Filename'"),
        (lambda r: (r / TABLE).write_bytes(b""), "metadata_global_v2.csv"),
        (lambda r: (r / TABLE).unlink(), "no metadata_global_v2.csv in .*which holds dicom_clean"),
        (lambda r: (r / "dicom_clean").rename(r / "pictures"), "9 of the 9 images .* correct root"),
        (lambda r: (r / "dicom_clean" / FIRST).write_bytes(b"DICOM?"), f"1 of 9 images cannot be read: .*{FIRST}"),
        (lambda r: (r / "dicom_clean" / FIRST).write_bytes(b""), f"1 of 9 images cannot be read: .*{FIRST} .*empty"),
        (
            lambda r: (r / "dicom_clean" / FIRST).write_bytes((r / "dicom_clean" / SECOND).read_bytes()[:-60]),
            f"1 of 9 images cannot be read: .*{FIRST} .*2340 bytes of pixels",
        ),
        (
            lambda r: (
                (r / "dicom_clean" / FIRST).rename(r / "x") and (r / "dicom_clean" / FIRST).symlink_to("/etc/group")
            ),
            "leads out of the data root",
        ),
    ],
)
def test_bad_files_are_told_before_training(root, spoil, message):
    spoil(root)
    with pytest.raises(DataError, match=message):
        ready(root)


def test_no_consensus_image_on_disk_is_an_empty_test_split(root):
    for name in table_of(root).query("ConsensusTestset == '1'")["Filename"]:
        (root / "dicom_clean" / name).unlink()
    with (
        pytest.warns(UserWarning, match="3 of the 9 images"),
        pytest.raises(DataError, match="the test split of BrixIADataModule holds no image"),
    ):
        ready(root, allow_missing=True)


def test_test_images_alone_are_enough_for_all_that_does_not_train(root):
    table = table_of(root)
    gone = table.query("ConsensusTestset == '0'")["Filename"]
    for name in gone:
        (root / "dicom_clean" / name).unlink()
    lines = (root / TABLE).read_text(encoding="utf-8-sig").splitlines()
    kept = [line for line in lines if not any(name in line for name in gone)]
    (root / TABLE).write_text("\n".join(kept) + "\n", encoding="utf-8-sig")
    data = BrixIADataModule(str(root), size=32)
    data.setup("test")
    assert len(data.dataset("test")) == len(table) - len(gone) > 0
    with pytest.raises(DataError, match="train split of BrixIADataModule holds no image"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"target": "score"}, "target is 'score': give 'severity', 'zones', 'detectors'"), ({"val_fraction": 1}, "is 1")],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        BrixIADataModule("nowhere", **options)


@pytest.mark.real_data
def test_the_whole_table_reads_as_published(chex_data):
    path = chex_data / "brixia_labels_full" / TABLE
    metadata = read_metadata(path)
    plain = table_of(path.parent)
    assert len(metadata) == len(plain) == 4695
    assert metadata["image_id"].tolist() == plain["Filename"].str.removesuffix(".dcm").tolist()
    assert metadata[list(ZONES)].sum(axis=1).tolist() == plain["BrixiaScoreGlobal"].astype(int).tolist()
    with pytest.warns(UserWarning, match="264 images show subjects of the consensus test set"):
        images = split_by_subject(metadata, 0.1, 0)
    assert images["split"].value_counts()["test"] == 150 and len(images) == 4695 - 264
    assert images["consensus"].equals(images["split"] == "test")
    assert (images.groupby("patient_id")["split"].nunique() == 1).all()
    severity = images[list(ZONES)].sum(axis=1)
    val, train = severity[images["split"] == "val"], severity[images["split"] == "train"]
    assert abs(len(val) / (len(val) + len(train)) - 0.1) < 0.01
    assert set(val) == set(range(19)) and abs(val.mean() - train.mean()) < 0.3
