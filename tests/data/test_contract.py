"""What is missing of the contract is named before anything long begins, and no code is typed around it."""

import ast
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from commands import TINY, the_error
from fakes import write_cohen
from own_data import ForeignData, OfferingData, Squares, SquaresData
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import LAYER, TinyData, TinyTask, tiny_trainer
from torch.utils.data import Dataset

import lightning_chex
from lightning_chex.attribution import IBA, GradCAM
from lightning_chex.cli.trainer import ChexTrainer
from lightning_chex.data import CohenDataModule, SyntheticDataModule
from lightning_chex.data.adapter import Adapter, adapted
from lightning_chex.data.contract import PAGE, check_labels, outputs_of
from lightning_chex.explanations import IBACallback, MapWriter

ROOT = Path(lightning_chex.__file__).parent


def test_no_data_and_no_model_is_typed_any():
    """Outside of the page itself."""
    found, names = [], 0
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg) and node.arg in (
                "datamodule",
                "dataset",
                "pl_module",
                "data",
                "model",
            ):
                names += 1
                if node.annotation is not None and ast.unparse(node.annotation) in ("Any", "object"):
                    found.append(f"{path.name}:{node.lineno} {node.arg}")
    asked_of_anything = {"contract.py", "adapter.py", "main.py", "arguments.py"}
    assert names > 60 and [place for place in found if place.split(":")[0] not in asked_of_anything] == []


def trainer_of(folder: Path) -> ChexTrainer:
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return ChexTrainer(accelerator="cpu", devices=1, default_root_dir=folder, **options)


def test_this_packages_data_modules_offer_everything_and_any_other_is_filled_up():
    own = SyntheticDataModule(num_train=2, num_val=2, num_test=2, size=32)
    assert adapted(own) is own
    other = TinyData()
    filled = adapted(other)
    assert isinstance(filled, Adapter) and adapted(filled) is filled and filled == adapted(other) != adapted(TinyData())
    assert filled.explained_dataset("validate") is other.val and filled.class_names == other.class_names
    assert filled.readable(other.val, "val") is other.val and filled.dataset("val") is None and filled.parts() == {}
    assert filled.fingerprint() == "unknown" and filled.rater_disagreement() is None and filled.unreadable_images == ()
    other.unreadable_images = ["a"]  # what changes later is seen, and None is as good as missing
    other.batch_size = None
    assert filled.unreadable_images == ["a"] and filled.batch_size == adapted(None).batch_size == 16
    nothing = adapted(None)
    assert nothing.class_names is None and nothing.explained_dataset("test") is None and nothing.size is None


def test_a_model_without_class_names_has_those_of_its_data():
    task = TinyTask()
    assert outputs_of(task, adapted(SquaresData())).class_names == task.class_names
    del task.class_names
    assert outputs_of(task, adapted(SquaresData())).class_names == ["left", "right"]
    assert outputs_of(task).class_names == [] and outputs_of(task).score_names == ["severity"]
    task.class_names = []  # a score, whatever the data are
    assert outputs_of(task, adapted(SquaresData())).class_names == []


class Unlabelled(Dataset):
    def __len__(self) -> int:
        return 3


class Uneven(Unlabelled):
    labels = torch.zeros(2)


class OneOf(SquaresData):
    def __init__(self, dataset: Dataset) -> None:
        super().__init__(size=32)
        self.given = dataset

    def build(self, split, transform):
        return self.given


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Unlabelled(), "Unlabelled has no labels, which the val split needs"),
        (Uneven(), r"labels of Uneven have shape .2,., but there are 3 samples in the val split"),
    ],
)
def test_a_data_set_without_labels_is_refused_before_an_image_is_read(dataset, words):
    with pytest.raises(MisconfigurationException, match=f"{words}.*{PAGE}"):
        OneOf(dataset).setup("validate")
    with pytest.raises(MisconfigurationException, match=PAGE):
        OneOf(dataset).overview()


class Lacking(TinyData):
    """Its samples lack a key."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def explained_dataset(self, stage: str):
        return [{key: value for key, value in self.val[0].items() if key != self.key}]


# boxes without their classes are wrong for whoever reads the data set; the other two only the callback needs
@pytest.mark.parametrize(
    ("key", "needing"), [("image", "IBACallback"), ("label", "IBACallback"), ("box_labels", "Lacking")]
)
@pytest.mark.parametrize("work", ["fit", "validate", "test"])
def test_a_sample_that_cannot_be_explained_is_refused_at_set_up(tmp_path, key, needing, work):
    task = TinyTask()
    trainer = tiny_trainer(tmp_path, IBACallback(IBA(layer=LAYER, steps=2)))
    with pytest.raises(MisconfigurationException, match=f"has no '{key}', which {needing} needs.*{PAGE}"):
        getattr(trainer, work)(task, Lacking(key))
    assert task.steps == 0


@pytest.mark.parametrize("key", ["label", "image_id"])
def test_evaluate_names_the_key_it_lacks(tmp_path, key):
    with pytest.raises(MisconfigurationException, match=f"a sample has no '{key}', which evaluate needs.*{PAGE}"):
        trainer_of(tmp_path).evaluate(TinyTask(), Lacking(key), output_dir=str(tmp_path / "out"))


def test_commands_name_the_member_that_is_missing(tmp_path):
    trainer, data = trainer_of(tmp_path), ForeignData()
    with pytest.raises(
        MisconfigurationException, match=f"ForeignData has no explained_dataset, which evaluate .*{PAGE}"
    ):
        trainer.evaluate(TinyTask(), data, output_dir=str(tmp_path / "out"))
    with pytest.raises(MisconfigurationException, match=f"ForeignData has no parts, which inspect needs.*{PAGE}"):
        trainer.inspect(None, data, output_dir=str(tmp_path / "inspect"))
    with pytest.raises(MisconfigurationException, match=f"ForeignData has no prepare, which prepare needs.*{PAGE}"):
        trainer.prepare(None, data, output_dir=str(tmp_path / "copy"))
    with pytest.raises(MisconfigurationException, match=f"TinyTask has no predict_step, which explain needs.*{PAGE}"):
        tiny_trainer(tmp_path, MapWriter(GradCAM(layer=LAYER), tmp_path / "maps")).predict(TinyTask(), data)
    with pytest.raises(MisconfigurationException, match=f"network='net' is not a module of TinyTask.*{PAGE}"):
        tiny_trainer(tmp_path, IBACallback(IBA(layer=LAYER), network="net")).fit(TinyTask(), TinyData())


class Looked(OfferingData):
    """Has nothing before it is set up, and offers its parts."""

    def setup(self, stage: str) -> None:
        self.ready = True

    def parts(self) -> dict[str, Squares]:
        assert self.ready
        return {split: SquaresData().build(split, self.transform) for split in ("train", "val")}


def test_another_data_module_that_has_parts_is_inspected(tmp_path, capsys):
    trainer_of(tmp_path).inspect(None, Looked(), output_dir=str(tmp_path / "inspect"))
    said = capsys.readouterr().out
    assert "Looked: 24 images" in said and "left" in said and (tmp_path / "inspect" / "Looked.png").is_file()
    assert isinstance(Looked(), pl.LightningDataModule)


def test_one_method_offers_the_images_to_explain_with_the_lungs_that_training_does_not_read(tmp_path):
    root = write_cohen(tmp_path)
    (root / "lung_masks").mkdir()
    for path in (root / "data" / "public-cohen-subset").iterdir():
        with Image.open(path) as file:
            mask = Image.new("L", file.size)
        width, height = mask.size
        for left in (width // 8, 5 * width // 8):
            mask.paste(255, (left, height // 8, left + width // 4, 7 * height // 8))
        mask.save(root / "lung_masks" / f"{path.stem}.png")
    data = CohenDataModule(str(root), size=32)
    assert not hasattr(data, "evaluated_dataset")
    for stage, split in (("validate", "val"), ("test", "test")):
        shown = data.explained_dataset(stage)[0]
        assert shown["lung_mask"].shape == (2, 32, 32) and shown["lung_mask"].flatten(1).any(1).all()
        assert "lung_mask" not in data.dataset(split)[0]


def test_the_command_line_says_where_the_names_of_classes_come_from(place, capsys):
    text = the_error(capsys, "fit", "--data", "own_data.NamelessData", *TINY)
    assert "class_names is empty" in text and "the data module's class_names" in text and PAGE in text


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        (torch.tensor([[0.0, 1.0], [1.0, torch.nan]]), ("a", "b"), "hold nan, first in sample 1"),
        (torch.tensor([[0.0, 1.0], [2.0, 0.0]]), ("a", "b"), "hold 2, first in sample 1 .*give 0 or 1"),
        (torch.tensor([[0.0, -1.0], [1.0, 0.0]]), ("a", "b"), "hold -1, first in sample 0"),
        (torch.tensor([torch.inf, 3.0]), (), "hold inf, first in sample 0 .*give a score"),
        (torch.zeros(2, 3), ("a", "b"), r"shape \(2, 3\), but there are 2 class_names"),
        (torch.zeros(2, 2), ("a", "a"), "names a class twice: a, a"),
    ],
)
def test_labels_nobody_could_learn_from_are_refused(labels, names, words):
    class Two:
        def __init__(self):
            self.labels = labels

        def __len__(self):
            return 2

    with pytest.raises(MisconfigurationException, match=words):
        check_labels(Two(), "train split", names)
