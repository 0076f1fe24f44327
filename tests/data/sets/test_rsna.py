"""RSNA's pneumonia X-rays in the layout of the challenge: a row a box, empty cells where there is none."""

import numpy as np
import pytest
import torch
from fakes_brixia import write_dicom

from lightning_chex.cli.main import main
from lightning_chex.data import DataError, RSNADataModule

pytestmark = pytest.mark.filterwarnings("ignore")


def write_rsna(root, size=32, images=20):
    """Every second image has an opacity, every fourth two; boxes are given in the 1024 pixels of the originals."""
    (root / "stage_2_train_images").mkdir(parents=True)
    (root / "stage_2_test_images").mkdir()
    lines = ["patientId,x,y,width,height,Target"]
    for i in range(images):
        name = f"{i:08x}-01e2-4a67"
        write_dicom(root / "stage_2_train_images" / f"{name}.dcm", np.full((size, size), i, dtype=np.uint16))
        if i % 2 == 0:
            lines.append(f"{name},,,,,0")
        else:
            lines.append(f"{name},264.0,152.0,213.0,379.0,1")
            lines += [f"{name},562.0,152.0,256.0,453.0,1"] * (i % 4 == 1)
    write_dicom(root / "stage_2_test_images" / "ffff.dcm", np.zeros((size, size), dtype=np.uint16))
    (root / "stage_2_train_labels.csv").write_text("\n".join(lines) + "\n")
    return root


def test_labels_and_boxes_are_those_of_the_table(tmp_path):
    data = RSNADataModule(str(write_rsna(tmp_path / "rsna")), size=32)
    data.setup()
    assert data.class_names == ("Lung Opacity",)
    found = {}
    for part in data.parts().values():
        for i, name in enumerate(part.image_ids):
            found[int(name[:8], 16)] = (part.labels[i].item(), part[i]["boxes"])
    assert {i: label for i, (label, _) in found.items()} == {i: float(i % 2) for i in range(20)}
    assert {i: len(boxes) for i, (_, boxes) in found.items()} == {i: (0, 2, 0, 1)[i % 4] for i in range(20)}
    first, second = torch.tensor([[264, 152, 477, 531], [562, 152, 818, 605]]) * 32 / 1024
    assert torch.allclose(found[1][1], torch.stack([first, second])) and torch.allclose(found[3][1][0], first)
    explained = data.explained_dataset("test")
    assert len(explained) and all(len(explained[i]["boxes"]) for i in range(len(explained)))


def test_inspect_recognises_the_folder(tmp_path, monkeypatch, capsys):
    root = write_rsna(tmp_path / "rsna")
    monkeypatch.chdir(tmp_path)
    main(["inspect", "--data.root", str(root)])
    said = capsys.readouterr().out
    assert "RSNADataModule: 20 images of 20 patients" in said and "Lung Opacity" in said
    (root / "stage_2_train_labels.csv").unlink()
    with pytest.raises(DataError, match="no stage_2_train_labels.csv in .*rsna, which holds stage_2_test_images"):
        RSNADataModule(str(root)).look()


def with_boxes_of(root, corners, images=40, size=256):
    """Copies of ``size`` pixels with one box each, ``x, y, width, height``."""
    (root / "stage_2_train_images").mkdir(parents=True)
    lines = ["patientId,x,y,width,height,Target"]
    for number in range(images):
        name = f"{number:08x}"
        write_dicom(root / "stage_2_train_images" / f"{name}.dcm", np.full((size, size), number, dtype=np.uint16))
        lines.append(f"{name},{corners},1")
    (root / "stage_2_train_labels.csv").write_text("\n".join(lines) + "\n")
    return str(root)


def first_box(data):
    data.setup()
    return data.dataset("val")[0]["boxes"][0]


def test_boxes_of_smaller_copies_are_taken_as_theirs_and_that_is_said(tmp_path):
    root = with_boxes_of(tmp_path / "rsna", "64,32,128,96")
    with pytest.warns(UserWarning, match="all 40 boxes lie within the 256 x 256 pixels .* --data.frame original"):
        box = first_box(RSNADataModule(root, size=256))
    assert box.tolist() == [64, 32, 192, 128]
    assert first_box(RSNADataModule(root, size=256, frame="original")).tolist() == [16, 8, 48, 32]


def test_boxes_beyond_a_smaller_copy_are_of_the_originals(tmp_path):
    root = with_boxes_of(tmp_path / "rsna", "512,256,256,128")
    assert first_box(RSNADataModule(root, size=256)).tolist() == [128, 64, 192, 96]


def test_few_boxes_that_could_be_of_either_have_to_be_decided(tmp_path):
    root = with_boxes_of(tmp_path / "rsna", "64,32,128,96", images=12)
    with pytest.raises(DataError, match="its 12 boxes could be .*: give --data.frame copy or --data.frame original"):
        RSNADataModule(root, size=256).setup()
    assert first_box(RSNADataModule(root, size=256, frame="copy")).tolist() == [64, 32, 192, 128]
    with pytest.raises(DataError, match="frame is 'half': give original or copy"):
        RSNADataModule(root, frame="half")
