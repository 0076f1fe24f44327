"""torchxrayvision's data sets: of a stand-in with all it may say, and of the library itself where it is installed."""

import numpy as np
import pandas as pd
import pytest
import torch
from commands import TINY
from PIL import Image

from lightning_chex.cli.main import main
from lightning_chex.data import DataError, XRVDataModule

PATHOLOGIES = ["Edema", "", "Mass", "Hernia"]


class Sets:
    """24 images of 12 patients, as torchxrayvision's data sets are: Hernia is known of none, Mass of half."""

    def __init__(self, count: int = 24, pathology_masks: bool = True, broken: int = -1) -> None:
        self.pathologies, self.pathology_masks, self.broken = PATHOLOGIES, pathology_masks, broken
        self.grey = np.random.default_rng(0).integers(0, 256, (count, 40, 40)).astype(np.uint8)
        self.labels = np.full((count, 4), np.nan, np.float32)
        self.labels[:, 0] = np.arange(count) // 2 % 2
        self.labels[::2, 2] = np.arange(count)[::2] // 4 % 2
        own = {"patientid": np.arange(count) // 2, "has_masks": self.labels[:, 0] == 1, "view": "PA"}
        more = {"sex_male": np.arange(count) % 4 < 2, "sex_female": np.arange(count) % 4 == 2, "age_years": 50.0}
        self.csv = pd.DataFrame(own | more, index=range(100, 100 + count))

    def __len__(self) -> int:
        return len(self.grey)

    def __getitem__(self, index: int):
        if index == self.broken:
            raise OSError("no such file")
        image = (2 * (self.grey[index] / 255.0) - 1.0) * 1024
        sample = {"idx": index, "lab": self.labels[index], "img": image[None].astype(np.float32)}
        if self.pathology_masks:
            mask = np.zeros((1, 40, 40))
            mask[0, 10:20, 4:16] = 1
            sample["pathology_masks"] = {0: mask} if self.labels[index, 0] == 1 else {}
        return sample


def test_images_labels_masks_and_groups_are_those_of_the_data_set():
    source = Sets()
    data = XRVDataModule(source, size=40, augment=False)
    data.setup()
    assert data.class_names == ("Edema", "Mass")
    count, patients = 0, []
    for part in data.parts().values():
        patients.append(set(part.patient_ids))
        for n, name in enumerate(part.image_ids):
            i, sample = int(name), part[n]
            expected = (source.grey[i] / 255 - 0.485) / 0.229  # of the first channel
            np.testing.assert_allclose(sample["image"][0].numpy(), expected, atol=2e-6)
            np.testing.assert_array_equal(sample["label"].numpy(), source.labels[i, [0, 2]])
            mask = np.zeros((2, 40, 40), bool)
            mask[0, 10:20, 4:16] = i // 2 % 2 == 1
            np.testing.assert_array_equal(sample["finding_masks"].numpy(), mask)
            sex = "M" if i % 4 < 2 else "F" if i % 4 == 2 else ""
            assert sample["subgroups"] == {"sex": sex, "age": "40-59", "view": "PA"}
            assert sample["patient_id"] == str(i // 2)
            count += 1
    assert count == 24 and not patients[0] & patients[1] and not (patients[0] | patients[1]) & patients[2]
    explained = data.explained_dataset("validate")
    assert len(explained) and all(explained[i]["finding_masks"].any() for i in range(len(explained)))


def test_trained_and_explained_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--data=XRVDataModule", f"--data.dataset={__name__}.Sets", "--data.options={count: 32}"]
    network = ["--model.backbone=test_resnet", "--trainer.callbacks=lightning_chex.explanations.IBACallback"]
    method = [
        "--trainer.callbacks.attributor=lightning_chex.attribution.IBA",
        "--trainer.callbacks.attributor.layer=layer2",
    ]
    main(["fit", *arguments, *network, *method, *TINY, "--trainer.logger=false"])
    assert list(tmp_path.rglob("explanations/epoch_000/*.png"))


@pytest.mark.parametrize(
    ("dataset", "options", "words"),
    [
        ("torchxrayvision.datasets.Nothing", {}, "cannot be imported"),
        ("Nothing", {}, "cannot be imported"),
        (f"{__name__}.Sets", {"size": 3}, "cannot be made with data.options {'size': 3}"),
        ([1, 2], {}, "is a list without pathologies, labels, csv"),
        (None, {}, "data.dataset is not given"),
        (f"{__name__}.Sets", {"broken": 0}, "image 0000000 of Sets cannot be read: OSError: no such file"),
    ],
)
def test_what_cannot_be_used_is_one_error(dataset, options, words):
    with pytest.raises(DataError, match=words):
        XRVDataModule(dataset, options, val_fraction=0.3, size=32).setup()


def test_classes_that_it_does_not_have_and_images_that_are_normalised_otherwise():
    with pytest.raises(DataError, match="data.classes names Nodule, but the data set has Edema, , Mass"):
        XRVDataModule(Sets(), classes=["Nodule"], size=32).setup()
    source = Sets()
    source.grey = source.grey * 8.0
    with pytest.raises(DataError, match=r"has pixels \(1, 40, 40\) from .*: give one grey plane from -1024 to 1024"):
        XRVDataModule(source, size=32).setup()


def test_the_library_itself(tmp_path):
    datasets = pytest.importorskip("torchxrayvision.datasets", reason="torchxrayvision is an extra")
    names = [f"{i:08d}_000.png" for i in range(24)]
    grey = np.random.default_rng(0).integers(0, 256, (24, 64, 64)).astype(np.uint8)
    for name, own in zip(names, grey, strict=True):
        Image.fromarray(own).save(tmp_path / name)
    header = [
        "Image Index",
        "Finding Labels",
        "Follow-up #",
        "Patient ID",
        "Patient Age",
        "Patient Gender",
        "View Position",
    ]
    rows = [[name, ("Mass", "No Finding")[i % 2], 0, i, 50, "F", "PA"] for i, name in enumerate(names)]
    pd.DataFrame(rows, columns=header).to_csv(tmp_path / "labels.csv", index=False)
    boxes = [f"{name},Mass,160,320,320,160,,," for name in names[::2]]
    (tmp_path / "boxes.csv").write_text("\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,,,,", *boxes]))
    options = {"imgpath": str(tmp_path), "csvpath": str(tmp_path / "labels.csv")}
    options |= {"bbox_list_path": str(tmp_path / "boxes.csv"), "pathology_masks": True}
    assert datasets.NIH_Dataset
    data = XRVDataModule("torchxrayvision.datasets.NIH_Dataset", options, classes=["Mass"], size=64, augment=False)
    data.setup()
    seen = 0
    for part in data.parts().values():
        for n, name in enumerate(part.image_ids):
            sample, i = part[n], int(name)
            np.testing.assert_allclose(sample["image"][0].numpy(), (grey[i] / 255 - 0.485) / 0.229, atol=2e-6)
            mask = torch.zeros(64, 64, dtype=torch.bool)
            mask[20:30, 10:30] = i % 2 == 0
            assert sample["label"].item() == (i % 2 == 0) and torch.equal(sample["finding_masks"][0], mask)
            seen += 1
    assert seen == 24
