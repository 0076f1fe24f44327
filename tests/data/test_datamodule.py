from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import RandomSampler

from lightning_chex.data import PATHOLOGIES, ChestXrayDataModule, CohenDataModule, DataError, NIHDataModule


class Rows:
    """A data set whose images are blank."""

    def __init__(self, labels: torch.Tensor, transform) -> None:
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        image = torch.zeros(3, 4, 4)
        boxes = {"boxes": torch.tensor([[0.0, 0, 2, 2]]).repeat(index, 1), "box_labels": torch.zeros(index).long()}
        return {"image": image, "label": self.labels[index], "image_id": str(index), **boxes}


class Toy(ChestXrayDataModule):
    class_names = ("heart", "lung", "bone")

    def __init__(self, **splits) -> None:
        options = {name: splits.pop(name) for name in ("batch_size", "num_workers", "augment") if name in splits}
        super().__init__(size=4, **options)
        self.splits = splits
        self.calls: list[str] = []

    def check(self) -> None:
        self.calls.append("check")

    def build(self, split, transform):
        self.calls.append(split)
        return Rows(self.splits.get(split, torch.eye(3)), transform)


@pytest.mark.parametrize(
    ("stage", "splits"),
    [("fit", ["train", "val"]), ("validate", ["val"]), ("test", ["test"]), (None, ["train", "val", "test"])],
)
def test_a_stage_checks_everything_and_builds_its_own_splits_once(stage, splits):
    data = Toy()
    data.setup(stage)
    data.setup(stage)
    assert data.calls == ["check", *splits]


def test_only_training_images_are_augmented():
    for augment in (True, False):
        data = Toy(augment=augment)
        data.setup()
        assert [data.dataset(split).transform.augment for split in ("train", "val", "test")] == [augment, False, False]


def test_pos_weight_is_negatives_over_positives():
    data = Toy(train=torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 1, 0], [0, 0, 1]]))
    torch.testing.assert_close(data.pos_weight, torch.tensor([3.0, 1 / 3, 1.0]))


@pytest.mark.parametrize(("column", "word"), [(0.0, "positive"), (1.0, "negative")])
def test_pos_weight_names_the_class_it_cannot_weigh(column, word):
    labels = torch.eye(3)
    labels[:, 1] = column
    with pytest.raises(DataError, match=f"no {word} image of lung among the 3"):
        _ = Toy(train=labels).pos_weight


def test_severity_has_no_pos_weight():
    data = Toy(train=torch.arange(4.0))
    data.class_names = ()
    with pytest.raises(ValueError, match="severity"):
        _ = data.pos_weight


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_split_is_named(split):
    with pytest.raises(DataError, match=f"the {split} split of Toy holds no image"):
        Toy(**{split: torch.zeros(0, 3)}).setup()


@pytest.mark.parametrize(("images", "devices", "batches"), [(9, 1, [4, 4]), (8, 1, [4, 4]), (3, 1, [3]), (8, 2, None)])
def test_no_training_batch_is_incomplete_unless_it_is_the_only_one(images, devices, batches):
    data = Toy(train=torch.zeros(images, 3), batch_size=4)
    data.trainer = SimpleNamespace(world_size=devices, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, RandomSampler)
    assert loader.pin_memory is False
    if batches is None:  # four images a device: dropping would leave none
        assert loader.drop_last is False
    else:
        assert [len(batch["image"]) for batch in loader] == batches


def test_other_loaders_keep_every_image_in_order():
    data = Toy(val=torch.zeros(5, 3), test=torch.zeros(6, 3), batch_size=4)
    for loader, count in [(data.val_dataloader(), 5), (data.test_dataloader(), 6), (data.predict_dataloader(), 6)]:
        batches = list(loader)
        assert [name for batch in batches for name in batch["image_id"]] == [str(i) for i in range(count)]
        assert [len(boxes) for boxes in batches[0]["boxes"]] == [0, 1, 2, 3]


def test_workers_stay_alive_between_epochs():
    assert Toy(num_workers=1).val_dataloader().persistent_workers
    assert not Toy(num_workers=0).val_dataloader().persistent_workers


def test_explained_images_take_classes_in_turn():
    labels = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 1]])
    data = Toy(val=labels, test=labels.flip(0))
    explained = data.explained_dataset("validate")
    assert [explained[i]["image_id"] for i in range(6)] == ["1", "4", "3", "2", "5", "0"]
    assert data.explained_dataset("test")[5]["image_id"] == "5"


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}])
def test_wrong_counts_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Toy(**options)


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("NIHDataModule", {"root": "here", "val_fraction": 0.2, "batch_size": 4}, NIHDataModule),
        ("CohenDataModule", {"root": "here", "target": "detectors", "rater": "junior", "size": 64}, CohenDataModule),
    ],
)
def test_every_option_is_a_typed_option_of_the_command_line(name, options, kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ChestXrayDataModule, "data")
    path = f"{kind.__module__}.{name}"
    config = parser.parse_args([f"--data={path}", *(f"--data.{key}={value}" for key, value in options.items())])
    data = parser.instantiate_classes(config).data
    assert isinstance(data, kind)
    assert {key: getattr(data, key) for key in options} == options
    with pytest.raises(Exception, match="batch_size"):
        parser.parse_args([f"--data={path}", "--data.root=here", "--data.batch_size=many"])


def test_class_names_are_known_before_any_file_is_read():
    assert NIHDataModule("nowhere").class_names == PATHOLOGIES
    assert CohenDataModule("nowhere").class_names == ()
    assert len(CohenDataModule("nowhere", target="detectors").class_names) == 3


class Named(Toy):
    patients = {"train": ["a", "b", "c"], "val": ["d", "e", "f"], "test": ["g", "b", "a"]}

    def build(self, split, transform):
        rows = super().build(split, transform)
        rows.patient_ids = self.patients[split]
        return rows


def test_a_patient_in_two_splits_is_said_when_the_second_is_built_and_by_inspect():
    data = Named()
    data.setup("fit")  # a patient of the test images does not matter yet; a warning would be an error in pytest.warns
    with pytest.warns(UserWarning, match=r"Named: 2 patient\(s\) have images in the train split and in the test split"):
        data.setup("test")
    notes = Named().overview(0)["notes"]
    assert len(notes) == 1 and "2 patient(s)" in notes[0]
    assert not [note for note in Toy().overview(0)["notes"] if "patient" in note]
