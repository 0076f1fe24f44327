from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fakes import write_cohen

from lightning_chex.data import DETECTORS, CohenDataModule, DataError, rater_agreement
from lightning_chex.data.images.images import image_id
from lightning_chex.data.sets.brixia_scores import ZONES
from lightning_chex.data.table.files import read_patients

TABLE = "data/public-annotations.csv"
IMAGES = "data/public-cohen-subset"
SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path):
    return write_cohen(tmp_path / "cohen")


def ready(root: Path, **options) -> CohenDataModule:
    data = CohenDataModule(str(root), **{"size": 32, "batch_size": 4, "augment": False, **options})
    data.setup()
    return data


def samples(data: CohenDataModule) -> list[dict]:
    return [dataset[i] for dataset in map(data.dataset, SPLITS) for i in range(len(dataset))]


def cell(path: Path, row: int, column: str, value: str) -> None:
    """Overwrite one cell of a table."""
    table = pd.read_csv(path, dtype=str, encoding="utf-8-sig")
    table.loc[row, column] = value
    table.to_csv(path, index=False)


def test_the_label_is_the_global_score(root):
    table = pd.read_csv(root / TABLE, encoding="utf-8-sig")
    table.index = table["filename"].str.replace(r"\.(png|jpg)$", "", regex=True)
    for rater, score in [
        ("senior", table["S-Global"]),
        ("junior", table["J-Global"]),
        ("mean", (table["S-Global"] + table["J-Global"]) / 2),
    ]:
        out = samples(ready(root, rater=rater))
        assert len(out) == 30
        for sample in out:
            assert sample["label"].shape == () and sample["label"].dtype == torch.float32
            assert sample["label"] == score[sample["image_id"]] == sample["zones"].sum()


def test_zones_lie_where_they_are_drawn(root):
    for sample in samples(ready(root, size=64)):
        upright = int(sample["image_id"].split(".")[1].split("-")[0]) % 2 == 1
        height, width = (64, 48) if upright else (48, 64)
        for zone, score in enumerate(sample["zones"].tolist()):
            y = (64 - height) // 2 + (1 + 2 * (zone % 3)) * height // 8 + height // 16
            x = (64 - width) // 2 + (1 if zone < 3 else 5) * width // 8 + width // 8
            grey = (sample["image"][0, y, x] * 0.229 + 0.485) * 255
            assert abs(float(grey) - (60 + 60 * score)) < 6  # JPEG


def test_detectors_say_which_scores_occur(root):
    data = ready(root, target="detectors")
    assert data.class_names == DETECTORS and data.score_names == ()
    for sample in samples(data):
        zones = sample["zones"].tolist()
        expected = [any(z <= 1 for z in zones), any(z == 2 for z in zones), any(z == 3 for z in zones)]
        assert sample["label"].tolist() == expected
        assert sample["boxes"].shape == (0, 4) and sample["box_labels"].shape == (0,)


def test_zones_are_the_six_scores_of_the_rater(root):
    table = pd.read_csv(root / TABLE, encoding="utf-8-sig").set_index("filename")
    table.index = table.index.str.replace(r"\.(png|jpg)$", "", regex=True)
    for rater, weights in [("senior", (1, 0)), ("junior", (0, 1)), ("mean", (0.5, 0.5))]:
        data = ready(root, target="zones", rater=rater)
        assert data.class_names == () and data.score_names == ZONES
        for sample in samples(data):
            row = table.loc[sample["image_id"]]
            expected = [weights[0] * row[f"S-{zone}"] + weights[1] * row[f"J-{zone}"] for zone in ZONES]
            assert sample["label"].dtype == torch.float32 and sample["label"].tolist() == expected
            assert sample["zones"].tolist() == expected


def test_agreement_by_hand():
    first = np.array([[0, 1, 2, 3, 0, 0], [3, 3, 2, 2, 0, 1], [1, 1, 1, 1, 0, 1]])
    second = np.array([[0, 1, 2, 1, 0, 0], [3, 2, 2, 2, 0, 1], [0, 1, 1, 1, 0, 2]])
    figures = rater_agreement(first, second)
    assert figures["images"] == 3
    assert figures["zone_agreement"] == pytest.approx(14 / 18) and figures["zone_mae"] == pytest.approx(5 / 18)
    by_zone = [figures[f"zone_agreement/{zone}"] for zone in ZONES]
    assert by_zone == pytest.approx([2 / 3, 2 / 3, 1, 2 / 3, 1, 2 / 3])
    assert [figures[f"zone_mae/{zone}"] for zone in ZONES] == pytest.approx([1 / 3, 1 / 3, 0, 2 / 3, 0, 1 / 3])
    assert figures["global_mae"] == pytest.approx((2 + 1 + 0) / 3) and figures["global_bias"] == pytest.approx(1)
    # sums 6, 11, 5 and 4, 10, 5: deviations -4/3, 11/3, -7/3 and -7/3, 11/3, -4/3
    assert figures["global_pearson"] == pytest.approx((28 + 121 + 28) / (16 + 121 + 49))
    assert figures["zone_pearson/C"] == pytest.approx(1) and np.isnan(figures["zone_pearson/E"])


@pytest.mark.parametrize("shapes", [((3, 6), (2, 6)), ((3, 5), (3, 5)), ((0, 6), (0, 6)), ((6,), (6,))])
def test_agreement_needs_six_zones_of_the_same_images(shapes):
    with pytest.raises(ValueError, match="scores have shapes"):
        rater_agreement(*map(np.zeros, shapes))


def test_raters_are_compared_over_the_whole_table_before_any_image_is_read(root):
    table = pd.read_csv(root / TABLE, encoding="utf-8-sig")
    for path in (root / IMAGES).iterdir():
        path.unlink()
    figures = CohenDataModule(str(root)).rater_disagreement()
    lower = (table["S-A"] > 0).mean()  # the fake junior is one lower in zone A where that can be
    assert figures["images"] == 30 and figures["zone_agreement"] == pytest.approx(1 - lower / 6)
    assert figures["zone_agreement/A"] == pytest.approx(1 - lower) and figures["zone_agreement/B"] == 1
    assert figures["global_mae"] == figures["global_bias"] == pytest.approx(lower)


def test_patients_stay_together_and_raters_share_the_split(root):
    sides = []
    for options in ({}, {"rater": "junior"}, {"target": "zones", "rater": "mean"}, {"target": "detectors"}):
        data = ready(root, **options)
        patients = [set(data.dataset(split).patient_ids) for split in SPLITS]
        assert sum(map(len, patients)) == len(set.union(*patients))
        sides.append([data.dataset(split).image_ids for split in SPLITS])
    assert sides[0] == sides[1] == sides[2] == sides[3]
    assert "0" in set.union(*patients) and "image:case.2-fig1" in set.union(*patients)


def test_without_sources_every_image_is_its_own_patient(tmp_path):
    out = samples(ready(write_cohen(tmp_path / "cohen", sources=False)))
    assert {sample["patient_id"] for sample in out} == {f"image:case.{i}-fig1" for i in range(30)}


def test_explained_images_span_the_scores(root):
    data = ready(root)
    for stage, split in [("validate", "val"), ("test", "test")]:
        explained = data.explained_dataset(stage)
        labels = data.dataset(split).labels
        assert len(explained) == len(labels)
        assert [float(explained[i]["label"]) for i in (0, 1)] == [float(labels.min()), float(labels.max())]


def test_a_patient_in_sources_is_found_under_another_suffix(tmp_path):
    (tmp_path / "sources.csv").write_text("filename,patientid\na.b.png,7\n")
    assert read_patients(pd.Series(["a.b", "c"]), tmp_path / "sources.csv").tolist() == ["7", "image:c"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / TABLE).unlink(), "no data/public-annotations.csv in .*which holds data, sources.csv"),
        (lambda r: (r / IMAGES).rename(r / "data/pictures"), "no folder .*public-cohen-subset.*pictures"),
        (lambda r: cell(r / TABLE, 3, "S-B", "4"), "S-B of case.3-fig1 is '4', but a zone scores 0, 1, 2 or 3"),
        (lambda r: cell(r / TABLE, 3, "J-B", "1.5"), "J-B of case.3-fig1 is '1.5'"),
        (lambda r: cell(r / TABLE, 3, "S-Global", "99"), "zones S-A to S-F of case.3-fig1 add up to .*S-Global is 99"),
        (lambda r: cell(r / TABLE, 3, "J-Global", "many"), "zones J-A to J-F .* J-Global is many"),
        (lambda r: cell(r / TABLE, 3, "J-C", ""), "1 rows without 'J-C', the first in line 5"),
        (lambda r: cell(r / TABLE, 3, "filename", "../x.png"), "not the bare file name"),
        (lambda r: cell(r / TABLE, 3, "filename", "case.4-fig1.jpg"), "more than one row for 1 images: case.4-fig1"),
        (lambda r: (r / TABLE).write_text((r / TABLE).read_text().replace(",", "\t")), r"separated by '\\t'"),
        (lambda r: (r / TABLE).write_text((r / TABLE).read_text().replace("S-D", "D")), "no column 'S-D', only"),
        (lambda r: (r / IMAGES / "case.4-fig1.jpg").unlink(), "1 of the 30 images .*case.4-fig1; .*allow_missing"),
        (lambda r: (r / IMAGES / "case.4-fig1.jpg").write_text("hello"), "1 of 30 images cannot be read"),
        (
            lambda r: (r / "sources.csv").write_text("patientid\nx\n"),
            "needs the comma-separated columns filename and patientid",
        ),
        (lambda r: (r / "sources.csv").write_text("filename,patientid\na/b.png,1\n"), "sources.csv: 'a/b.png' is not"),
        (
            lambda r: (r / "sources.csv").write_text("name\nx\n"),
            "needs the comma-separated columns filename and patientid",
        ),
        (
            lambda r: (r / "sources.csv").write_text("filename,patientid\na.png,1\na.png,2\n"),
            "more than one patient: a",
        ),
    ],
)
def test_bad_files_are_told_before_training(root, spoil, message):
    spoil(root)
    with pytest.raises(DataError, match=message):
        ready(root)


def test_a_partial_copy_works_if_allowed(root):
    (root / IMAGES / "case.4-fig1.jpg").unlink()
    with pytest.warns(UserWarning, match="1 of the 30 images"):
        assert len(samples(ready(root, allow_missing=True))) == 29


def test_a_partial_copy_moves_nobody_to_another_side(root):
    sides = {split: set(ready(root).dataset(split).image_ids) for split in ("train", "val", "test")}
    gone = sorted((root / "data" / "public-cohen-subset").iterdir())[::4]
    for path in gone:
        path.unlink()
    with pytest.warns(UserWarning, match=f"{len(gone)} of the 30"):
        partial = ready(root, allow_missing=True)
        partial.dataset("train")
    missing = {image_id(path.name) for path in gone}
    for split, before in sides.items():
        assert set(partial.dataset(split).image_ids) == before - missing


def test_sources_without_a_row_say_nothing(root, recwarn):
    (root / "sources.csv").write_text("filename,patientid\n")
    assert all(sample["patient_id"].startswith("image:") for sample in samples(ready(root)))
    assert not recwarn


def test_too_few_patients_leave_a_split_empty(tmp_path):
    with pytest.raises(DataError, match="split of CohenDataModule holds no image"):
        ready(write_cohen(tmp_path / "cohen", images=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "score"}, "target is 'score'"),
        ({"rater": "both"}, "rater is 'both'"),
        ({"target": "detectors", "rater": "mean"}, "rater 'mean'"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "val_fraction 0.6 and test_fraction 0.4"),
        ({"val_fraction": 0.0}, "val_fraction 0.0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CohenDataModule("nowhere", **options)


@pytest.mark.real_data
@pytest.mark.parametrize("target", ["severity", "zones", "detectors"])
def test_real_images_are_read_and_split(chex_data, target):
    data = ready(chex_data / "brixia_cohen", target=target)
    assert sum(len(data.dataset(split)) for split in SPLITS) == 120
    patients = [set(data.dataset(split).patient_ids) for split in SPLITS]
    assert sum(map(len, patients)) == len(set.union(*patients))
    for sample in samples(data):
        assert sample["image"].shape == (3, 32, 32) and sample["image"].isfinite().all()
    if target == "severity":
        labels = torch.cat([data.dataset(split).labels for split in SPLITS])
        assert labels.min() >= 0 and labels.max() == 18


@pytest.mark.real_data
def test_real_raters_agree_as_published(chex_data):
    figures = CohenDataModule(str(chex_data / "brixia_cohen")).rater_disagreement()
    assert figures["images"] == 120  # of the publication's 192
    assert figures["zone_agreement"] == pytest.approx(0.63, abs=0.01)
    assert figures["global_mae"] == pytest.approx(2.04, abs=0.01)
    assert figures["global_pearson"] == pytest.approx(0.850, abs=0.001)
