"""Public sets in their publishers' layouts, oddities included: labels, splits, boxes and masks as they were written."""

import gzip
import json

import numpy as np
import pytest
from fakes_brixia import write_dicom
from PIL import Image

from lightning_chex.data import (
    DataError,
    MIMICDataModule,
    PadChestDataModule,
    SIIMDataModule,
    TableDataModule,
    TBX11KDataModule,
    TuberculosisDataModule,
    VinBigDataDataModule,
    VinDrDataModule,
)
from lightning_chex.data.table.masks import Masks

pytestmark = pytest.mark.filterwarnings("ignore")


def picture(path, value=0, side=32, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, dtype=dtype)).save(path)


def dicom(path, value=0, side=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dicom(path, np.full((side, side), value, dtype=np.uint16))


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(",".join(line) for line in lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def samples(data):
    """Split, label and boxes (class: corners) of every image."""
    data.look()
    found = {}
    for split, part in data.parts().items():
        for i, name in enumerate(part.image_ids):
            sample = part[i]
            boxes = zip(sample.get("box_labels", []), sample.get("boxes", []), strict=True)
            found[name] = split, part.labels[i].tolist(), sorted((int(k), box.round().tolist()) for k, box in boxes)
    return found


VINDR = ["Aortic enlargement", "Nodule/Mass", "Pneumonia"]


def vindr_id(i):
    return f"{i:032x}"


def write_vindr(root):
    """Sixteen training images of three readers; image i has a mass that i % 4 of them draw, each 2 pixels apart."""
    head = ["image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max"]
    boxes = [head]
    labels = [["image_id", "rad_id", *VINDR, "Other diseases", "No finding"]]
    for i in range(16):
        dicom(root / "train" / f"{vindr_id(i)}.dicom", i, 64)
        for k in range(3):
            seen = k < i % 4
            own = [[str(10 + 2 * k), "20", str(30 + 2 * k), "40"]] if seen else []
            boxes += [[vindr_id(i), f"R{i + k}", "Nodule/Mass", *box] for box in own]
            boxes += [] if seen else [[vindr_id(i), f"R{i + k}", "No finding", "", "", "", ""]]
            row = ["0", str(int(seen)), str(i % 2), "1" if i == 3 else "0", str(int(not seen))]
            labels.append([vindr_id(i), f"R{i + k}", *row])
    write(root / "annotations" / "annotations_train.csv", boxes)
    write(root / "annotations" / "image_labels_train.csv", labels)
    # the consensus of the test has no readers, and another name of one class
    labels = [["image_id", *VINDR, "Other disease", "No finding"]]
    boxes = [head[:1] + head[2:]]
    for i in (100, 101):
        dicom(root / "test" / f"{vindr_id(i)}.dicom", i, 64)
        labels.append([vindr_id(i), "1", str(i - 100), "0", "1", "0"])
        boxes.append([vindr_id(i), "Aortic enlargement", "0", "0", "16.4", "32.8"])
    boxes.append([vindr_id(101), "Nodule/Mass", "32", "32", "64", "64"])
    write(root / "annotations" / "annotations_test.csv", boxes)
    write(root / "annotations" / "image_labels_test.csv", labels)
    return root


def test_vindr_joins_the_readers_by_majority_or_another_rule(tmp_path):
    root = write_vindr(tmp_path / "vindr")
    for rule, least in (("majority", 2), ("any", 1), ("all", 3)):
        data = VinDrDataModule(str(root), size=32, readers=rule)
        found = samples(data)
        assert data.class_names == (*VINDR, "Other diseases") and len(found) == 18
        for i in range(16):
            split, label, boxes = found[vindr_id(i)]
            count = i % 4
            assert split in ("train", "val")
            assert label == [0, count >= least, i % 2, i == 3]
            # two boxes of 20 pixels 2 apart overlap by 18 of 22; the mean of k boxes is k - 1 pixels from the first
            left = 10 + count - 1
            expected = [np.round(np.array([left, 20, left + 20, 40]) / 2).tolist()] if count >= least else []
            assert [k for k, _ in boxes] == [1] * len(expected)
            assert all(np.allclose(box, own, atol=0.51) for (_, box), own in zip(boxes, expected, strict=True))
        assert found[vindr_id(100)] == ("test", [1, 0, 0, 1], [(0, [0, 0, 8, 16])])
        assert found[vindr_id(101)] == ("test", [1, 1, 0, 1], [(0, [0, 0, 8, 16]), (1, [16, 16, 32, 32])])
    assert {split for split, *_ in found.values()} == {"train", "val", "test"}
    (root / "annotations" / "image_labels_test.csv").unlink()
    with pytest.raises(DataError, match=r"no image_labels_test.csv or annotations/image_labels_test.csv in .*vindr"):
        VinDrDataModule(str(root)).look()


def test_vinbigdata_of_resized_copies(tmp_path):
    """Originals of 200 x 400 pixels, whose copies are squares of 32; the sizes lie in a table of their own."""
    root = tmp_path / "vinbigdata"
    lines = [["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]]
    for i in range(20):
        picture(root / "train" / f"{vindr_id(i)}.png", i)
        for k in range(3):
            if k < i % 4:
                lines.append([vindr_id(i), "Cardiomegaly", "3", f"R{8 + k}", "100.0", "50.0", "200.0", "100.0"])
            else:
                lines.append([vindr_id(i), "No finding", "14", f"R{8 + k}", "", "", "", ""])
    write(root / "train.csv", lines)
    write(root / "train_meta.csv", [["image_id", "dim0", "dim1"], *([vindr_id(i), "200", "400"] for i in range(20))])
    found = samples(VinBigDataDataModule(str(root), size=32))
    expected = {vindr_id(i): ([i % 4 >= 2], [(0, [8, 8, 16, 16])] * (i % 4 >= 2)) for i in range(20)}
    assert {name: (label, boxes) for name, (_, label, boxes) in found.items()} == expected
    write(root / "train_meta.csv", [["image_id", "dim0", "dim1"], ["other", "200", "400"]])
    with pytest.raises(DataError, match="train.csv and .*train_meta.csv have no image_id in common"):
        VinBigDataDataModule(str(root)).look()
    (root / "train.csv").unlink()
    with pytest.raises(DataError, match="no train.csv in .*vinbigdata, which holds train, train_meta.csv"):
        VinBigDataDataModule(str(root)).look()


def relative_runs(mask):
    """Pairs of the distance to the last run's end and a length, column by column, as SIIM-ACR writes them."""
    marked = set(np.flatnonzero(mask.T.ravel()).tolist())
    starts = sorted(p for p in marked if p - 1 not in marked)
    ends = sorted(p + 1 for p in marked if p + 1 not in marked)
    pairs, last = [], 0
    for start, end in zip(starts, ends, strict=True):
        pairs += [start - last, end - start]
        last = end
    return " ".join(map(str, pairs))


def test_siim_masks_of_several_rows(tmp_path):
    root = tmp_path / "siim"
    lines = [["ImageId", " EncodedPixels"]]
    for i in range(20):
        uid = f"1.2.276.0.7230010.3.1.4.8323329.{i}.1517875162.301989"
        folder = root / "dicom-images-train" / f"1.2.{i}" / f"1.3.{i}"
        dicom(folder / f"{uid}.dcm", i)
        masks = []
        for k in range(i % 3):  # the second one lies at the other side
            mask = np.zeros((1024, 1024), bool)
            mask[64 + 320 * k : 68 + 320 * k, 512 * k + 128 : 512 * k + 192] = True
            mask[64 + 320 * k : 192 + 320 * k, 512 * k + 128 : 512 * k + 192] = True
            masks.append(mask)
        lines += [[uid, f" {relative_runs(mask)}"] for mask in masks] or [[uid, " -1"]]
    write(root / "train-rle.csv", lines)
    dicom(root / "dicom-images-test" / "1.2" / "1.3" / "1.2.276.9.dcm")
    data = SIIMDataModule(str(root), size=32)
    data.look()
    count = 0
    for part in data.parts().values():
        for n, name in enumerate(part.image_ids):
            i = int(name.split(".")[9])
            expected = np.zeros((32, 32), bool)  # a pixel of the copy is 32 of the original
            for k in range(i % 3):
                expected[2 + 10 * k : 6 + 10 * k, 16 * k + 4 : 16 * k + 6] = True
            assert part.labels[n].tolist() == [i % 3 > 0]
            assert np.array_equal(part[n]["finding_masks"][0].numpy(), expected)
            count += 1
    assert count == 20 and data.class_names == ("Pneumothorax",)
    data.setup()
    explained = data.explained_dataset("test")
    assert len(explained) and all(explained[i]["label"].item() == 1 for i in range(len(explained)))
    write(root / "train-rle.csv", [["ImageId", "Pixels"], *lines[1:]])
    with pytest.raises(DataError, match="no column 'EncodedPixels', which its publisher gives it; it has 'ImageId'"):
        SIIMDataModule(str(root)).look()


OBSERVATIONS = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
                "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
                "Pneumothorax", "Support Devices"]  # fmt: skip


def write_mimic(root):
    """Ten patients with two studies of a PA, an AP and a lateral image; the last study has no labels."""
    split = [["dicom_id", "study_id", "subject_id", "split"]]
    metadata = [["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows"]]
    labels = [["subject_id", "study_id", *OBSERVATIONS]]
    for n in range(10):
        subject, name = str(10000032 + n), ("train", "validate", "test")[max(0, n - 7)]
        for s in range(2):
            study = str(50000000 + 10 * n + s)
            for v, view in enumerate(("PA", "AP", "LATERAL")):
                dicom = f"{n}{s}{v}f7e9-3a3b"
                picture(root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg", n)
                split.append([dicom, study, subject, name])
                metadata.append([dicom, subject, study, "CHEST (PA AND LAT)", view, "3056"])
            if (n, s) != (9, 1):
                labels.append([subject, study, *(["1.0", "0.0", "-1.0", ""][(n + s + k) % 4] for k in range(14))])
    write(root / "mimic-cxr-2.0.0-split.csv.gz", split)
    write(root / "mimic-cxr-2.0.0-metadata.csv.gz", metadata[:1] + metadata[:0:-1])  # in another order
    write(root / "mimic-cxr-2.0.0-chexpert.csv", labels)
    return root


def test_mimic_joins_three_tables_by_their_ids(tmp_path):
    root = write_mimic(tmp_path / "mimic")
    data = MIMICDataModule(str(root), size=32, classes=["Edema", "Atelectasis"], missing="ignore")
    found = samples(data)
    value = [1.0, 0.0, None, None]
    expected = {}
    for n in range(10):
        for s in range(2 - (n == 9)):
            label = [value[(n + s + k) % 4] for k in (3, 0)]
            for v in range(2):
                name = f"files/p10/p{10000032 + n}/s{50000000 + 10 * n + s}/{n}{s}{v}f7e9-3a3b"
                if label != [None, None]:
                    expected[name] = ("train", "val", "test")[max(0, n - 7)], label
    known = {
        name: (split, [None if np.isnan(own) else own for own in label]) for name, (split, label, _) in found.items()
    }
    assert known == expected
    assert set(data.parts()["test"].patient_ids) == {"10000041"}
    lateral = samples(MIMICDataModule(str(root), size=32, classes=["Edema"], view=["LATERAL"], uncertain="negative"))
    assert len(lateral) == 19 and all(name.endswith("2f7e9-3a3b") for name in lateral)
    with pytest.raises(DataError, match=r"no mimic-cxr-2.0.0-negbio.csv in .*mimic, which holds files, mimic-cxr"):
        MIMICDataModule(str(root), labeler="negbio").look()
    with pytest.raises(ValueError, match="labeler is 'radiologist': give chexpert or negbio"):
        MIMICDataModule(str(root), labeler="radiologist")


def test_padchest_reads_lists_as_text_and_leaves_out_what_is_unusable(tmp_path):
    root = tmp_path / "padchest"
    texts = ["['cardiomegaly', ' pleural effusion', 'loc basal']", "['normal']", "['pneumonia']", "['nodule', 'mass']"]
    head = ["", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
            "Projection", "MethodLabel", "Labels"]  # fmt: skip
    lines = [",".join(head)]
    kept = {}
    for i in range(36):
        name, labels, projection = f"2168_{i}_00-163-058.png", texts[i % 4], "PA"
        if i in (7, 8, 9):
            labels, projection = [("['exclude']", "PA"), ("", "PA"), (labels, "L")][i - 7]
        else:
            kept[name[:-4]] = i % 4
        picture(root / str(i % 3) / name, 1000 * i, dtype=np.uint16)
        lines.append(
            f'{i},{name},{i % 3},20140915,S{i},P{i // 2},1950.0,{"MF"[i % 2]},{projection},Physician,"{labels}"'
        )
    table = root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    table.write_bytes(gzip.compress("\n".join(lines).encode()))
    classes = ["cardiomegaly", "pleural effusion", "mass"]
    data = PadChestDataModule(str(root), classes=classes, size=32)
    found = samples(data)
    told = {0: [1, 1, 0], 1: [0, 0, 0], 2: [0, 0, 0], 3: [0, 0, 1]}
    assert {name: label for name, (_, label, _) in found.items()} == {name: told[k] for name, k in kept.items()}
    patients = {split: set(part.patient_ids) for split, part in data.parts().items()}
    assert all(patients.values()) and sum(map(len, patients.values())) == len(set().union(*patients.values()))
    assert data.parts()["train"][0]["subgroups"]["age"] == "60-79"
    with pytest.raises(DataError, match="classes names 'atelectasis', 'infiltrates', .* does not know: it has"):
        PadChestDataModule(str(root)).look()
    table.unlink()
    with pytest.raises(DataError, match=r"one table PADCHEST_.*padchest holds none, but 0, 1, 2"):
        PadChestDataModule(str(root)).look()


def coco_of(names, boxes):
    categories = ["ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis"]
    return {
        "images": [{"id": 7 * i + 1, "file_name": own, "width": 512, "height": 512} for i, own in enumerate(names)],
        "annotations": [
            {"id": k, "image_id": 7 * i + 1, "category_id": own, "bbox": box} for k, (i, own, box) in enumerate(boxes)
        ],
        "categories": [{"id": k + 1, "name": own, "supercategory": "TB"} for k, own in enumerate(categories)],
    }


def test_tbx11k_boxes_of_coco_and_images_of_no_known_kind(tmp_path):
    root = tmp_path / "TBX11K"
    folder = root / "annotations" / "json"
    folder.mkdir(parents=True)
    expected = {}
    for split, start in (("train", 0), ("val", 100)):
        kinds = ["health", "sick", "tb", "tb", "tb"] * 3
        names = [f"{kind}/{kind[0]}{start + i:04d}.png" for i, kind in enumerate(kinds)]
        boxes = []
        for i, name in enumerate(names):
            picture(root / "imgs" / name, i)
            active, old = (256, 128, 64, 128), (0, 0, 512, 16)
            own = {2: [(1, active)], 3: [(1, active), (2, old)], 4: [(3, old)] if i == 4 else []}.get(i % 5, [])
            boxes += [(i, k, list(box)) for k, box in own]
            if i % 5 < 4:
                corners = [[(0, [16, 8, 20, 16])], [(0, [16, 8, 20, 16]), (1, [0, 0, 32, 1])]]
                expected[name[:-4]] = [i % 5 in (2, 3), i % 5 == 3], corners[i % 5 - 2] if i % 5 > 1 else []
        (folder / f"TBX11K_{split}.json").write_text(json.dumps(coco_of(names, boxes)))
    picture(root / "imgs" / "test" / "test_0001.png")
    found = samples(TBX11KDataModule(str(root), size=32))
    assert {name: (label, boxes) for name, (_, label, boxes) in found.items()} == expected
    assert all((split == "test") == (int(name[-4:]) >= 100) for name, (split, *_) in found.items())
    (folder / "TBX11K_val.json").write_text(json.dumps(coco_of(names, [(99, 1, [0, 0, 1, 1])])))
    with pytest.raises(DataError, match="TBX11K_val.json does not hold images, categories and annotations.*694"):
        TBX11KDataModule(str(root)).look()
    with pytest.raises(ValueError, match="classes is .*Latent.*give some of ActiveTuberculosis"):
        TBX11KDataModule(str(root), classes=["Latent"])


def test_a_table_of_ones_own_takes_json_of_coco_and_chexlocalize(tmp_path):
    root = tmp_path / "own"
    names = [f"x{i}.png" for i in range(12)]
    for i, name in enumerate(names):
        picture(root / name, i)
    kinds = ["ActiveTuberculosis", "ObsoletePulmonaryTuberculosis"]
    write(root / "T.csv", [["file", *kinds], *([name, str(i % 2), str(i % 3 // 2)] for i, name in enumerate(names))])
    boxes = [(i, 1, [256, 128, 64, 128]) for i in range(1, 12, 2)]
    (root / "boxes.json").write_text(json.dumps(coco_of([f"images/{name}" for name in names], boxes)))
    # run lengths of 4 x 4 pixels, column by column: 8 of none, 4 marked, 4 of none
    masks = {f"x{i}": {kinds[1]: {"size": [4, 4], "counts": "844"}} for i in range(2, 12, 3)}
    (root / "masks.json").write_text(json.dumps(masks))
    data = TableDataModule(
        str(root), str(root / "T.csv"), size=32, boxes="boxes.json", masks=Masks(runs=str(root / "masks.json"))
    )
    found = samples(data)
    expected = {f"x{i}": ([i % 2, i % 3 // 2], [(0, [16, 8, 20, 16])] * (i % 2)) for i in range(12)}
    assert {name: (label, own) for name, (_, label, own) in found.items()} == expected
    for part in data.parts().values():
        for k, name in enumerate(part.image_ids):
            marked = np.zeros((2, 32, 32), bool)
            marked[1, :, 16:24] = int(name[1:]) % 3 == 2
            assert np.array_equal(part[k]["finding_masks"].numpy(), marked)


@pytest.mark.parametrize(
    ("stem", "texts"),
    [
        ("CHNCXR", ["male 45yrs\nnormal", "female , 30 yrs\nright PTB", "male31yrs\nnormal", ""]),
        ("MCUCXR", ["Patient's Sex: M\nPatient's Age: 045Y\nnormal", "Patient's Sex: F\nPatient's Age: 030Y\ncavity",
                    "Patient's Sex: M\nPatient's Age: 031Y\nnormal", ""]),
    ],
)  # fmt: skip
def test_tuberculosis_is_told_by_the_last_digit(tmp_path, stem, texts):
    root = tmp_path / "set"
    (root / "ClinicalReadings").mkdir(parents=True)
    for i in range(24):
        name = f"{stem}_{i + 1:04d}_{i % 2}"
        picture(root / "CXR_png" / f"{name}.png", i)
        picture(root / "ManualMask" / "leftMask" / f"{name}.png", 255)  # of the same name as the image
        if texts[i % 4]:
            (root / "ClinicalReadings" / f"{name}.txt").write_text(texts[i % 4])
    data = TuberculosisDataModule(str(root), size=32)
    found = samples(data)
    assert {name: label for name, (_, label, _) in found.items()} == {
        f"CXR_png/{stem}_{i + 1:04d}_{i % 2}": [i % 2] for i in range(24)
    }
    groups = {
        int(name[15:19]) - 1: sample["subgroups"]
        for part in data.parts().values()
        for name, sample in zip(part.image_ids, (part[i] for i in range(len(part))), strict=True)
    }
    sexes, ages = ["M", "F", "M", ""], ["40-59", "18-39", "18-39", ""]
    assert groups == {i: {"sex": sexes[i % 4], "age": ages[i % 4]} for i in range(24)}
    picture(root / "CXR_png" / "other.png")
    with pytest.raises(DataError, match="1 of 25 images are not called CHNCXR_0001_0 or MCUCXR_0001_1.*: other"):
        TuberculosisDataModule(str(root)).look()
    assert len(samples(TuberculosisDataModule(str(root), size=32, allow_missing=True))) == 24
