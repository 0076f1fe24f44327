"""Whatever a data set of one's own gives that cannot be used is told in one line, with the value and the page."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import TINY, the_error
from own_data import ForeignData, Squares, SquaresData
from test_own_data import QUICK, configuration
from torch.utils.data import DataLoader, default_collate

from lightning_chex.cli.main import main
from lightning_chex.data.contract import PAGE
from lightning_chex.tasks import ClassificationTask

pytestmark = pytest.mark.filterwarnings("ignore")

Sample = dict[str, Any]


def without(key: str) -> Callable[[Sample], Sample]:
    return lambda sample: {name: value for name, value in sample.items() if name != key}


def with_(key: str, value: Any) -> Callable[[Sample], Sample]:
    return lambda sample: sample | {key: value(sample[key]) if callable(value) else value}  # tensors are not callable


def boxed(boxes: list, labels: list) -> Callable[[Sample], Sample]:
    return lambda sample: sample | {"boxes": torch.tensor(boxes), "box_labels": torch.tensor(labels)}


def with_nan(image: torch.Tensor) -> torch.Tensor:
    return image.clone().index_fill_(1, torch.tensor([5]), torch.nan)


SPOILT: dict[str, tuple[Callable[[Sample], Any], list[str]]] = {
    "NoImage": (without("image"), ["-0'", "no 'image'"]),
    "NumpyImage": (with_("image", torch.Tensor.numpy), ["-0'", "image of type float32 ndarray"]),
    "OneChannel": (with_("image", lambda image: image[:1]), ["-0'", "(1, 64, 64)", "(3, 64, 64)"]),
    "FourChannels": (with_("image", lambda image: image[[0, 1, 2, 2]]), ["-0'", "(4, 64, 64)", "(3, 64, 64)"]),
    "ByteImage": (with_("image", torch.Tensor.byte), ["-0'", "torch.uint8"]),
    "HalfImage": (with_("image", torch.Tensor.half), ["-0'", "torch.float16"]),
    "NanImage": (with_("image", with_nan), ["-0'", "192 values that are NaN"]),
    "OtherSize": (with_("image", lambda image: image[:, :40, :48]), ["-0'", "(3, 40, 48)", "(3, 64, 64)"]),
    "TupleSample": (lambda sample: (sample["image"], sample["label"]), ["is a tuple"]),
    "ListSample": (lambda sample: [sample["image"]], ["is a list"]),
    "NoName": (without("image_id"), ["no 'image_id'"]),
    "NoneName": (with_("image_id", None), ["image_id None"]),
    "TensorName": (with_("image_id", torch.tensor(3)), ["image_id tensor(3)"]),
    "NonePatient": (with_("patient_id", None), ["-0'", "patient_id None"]),
    "NoLabel": (without("label"), ["-0'", "no 'label'"]),
    "WordLabel": (with_("label", "left"), ["-0'", "label of type str"]),
    "OtherLabel": (with_("label", torch.zeros(3)), ["-0'", "label of shape (3,), not (2,)"]),
    "FlatBoxes": (boxed([4.0, 4, 9, 9], [0]), ["-0'", "boxes of shape (4,)"]),
    "ThreeNumbers": (boxed([[4.0, 4, 9]], [0]), ["-0'", "boxes of shape (1, 3)"]),
    "SwappedBox": (boxed([[2.0, 2, 9, 9], [20.0, 4, 9, 9]], [0, 0]), ["-0'", "number 1", "20, 4, 9, 9"]),
    "OutsideBox": (boxed([[70.0, 4, 90, 9]], [0]), ["-0'", "number 0", "70, 4, 90, 9", "64 x 64"]),
    "NanBox": (boxed([[torch.nan, 4, 90, 9]], [0]), ["-0'", "number 0", "nan"]),
    "OtherCount": (boxed([[4.0, 4, 9, 9]], [0, 1]), ["-0'", "(1, 4)", "(2,)"]),
    "UnknownClass": (boxed([[4.0, 4, 9, 9]], [2]), ["-0'", "class 2", "2 class_names"]),
    "ListedMask": (with_("finding_masks", [[0]]), ["-0'", "finding_masks of type list", "(2, 64, 64)"]),
    "SmallMask": (with_("finding_masks", torch.zeros(2, 8, 8, dtype=torch.bool)), ["-0'", "shape (2, 8, 8)"]),
    "OneLung": (with_("lung_mask", torch.zeros(1, 64, 64, dtype=torch.bool)), ["-0'", "lung_mask", "(2, 64, 64)"]),
    "FloatMask": (with_("lung_mask", torch.zeros(2, 64, 64)), ["-0'", "lung_mask of type float32"]),
    "FiveZones": (with_("zones", torch.zeros(5)), ["-0'", "zones of type float32 and shape (5,)", "(6,)"]),
    "UnnamedBoxes": (with_("boxes", torch.zeros(0, 4)), ["-0'", "no 'box_labels'"]),
}

MISLABELLED: dict[str, tuple[Callable[[torch.Tensor], Any], list[str]]] = {
    "FlatLabels": (lambda labels: labels[:, 0], ["shape (12,)", "2 class_names"]),
    "ListedLabels": (lambda labels: labels.tolist(), ["type list", "12 samples"]),
    "TwoLabels": (lambda labels: 2 * labels, ["hold 2, first in sample 1", "give 0 or 1"]),
    "FewLabels": (lambda labels: labels[:7], ["shape (7, 2)", "12 samples"]),
}


def spoilt(name: str, spoil: Callable[[Sample], Any], of: type[Squares] = Squares) -> str:
    """Make a data module of this file whose samples are spoilt, and return its path."""
    dataset = type(f"{name}Images", (of,), {"__getitem__": lambda self, i: spoil(of.__getitem__(self, i))})
    globals()[name] = type(name, (SquaresData,), {"dataset_class": dataset, "__module__": __name__})
    return f"{__name__}.{name}"


def mislabelled(name: str, change: Callable[[torch.Tensor], Any]) -> str:
    def build(self: SquaresData, split: str, transform: Any) -> Squares:
        images = SquaresData.build(self, split, transform)
        images.labels = change(images.labels)
        images.__class__ = type(f"{name}Images", (Squares,), {"__len__": lambda own: 12})
        return images

    globals()[name] = type(name, (SquaresData,), {"build": build, "__module__": __name__})
    return f"{__name__}.{name}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> list[str]:
    """Options with a checkpoint that good data have made."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = configuration("own_data.SquaresData", "ClassificationTask")
        main(["fit", "--config", config, *TINY, "--trainer.default_root_dir=a"])
    (checkpoint,) = folder.rglob("last.ckpt")
    return ["--config", str(folder / config), f"--ckpt_path={checkpoint}"]


def said(capsys, trained: list[str], command: str, data: str) -> str:
    """The one line that a command ends with."""
    own = ["--data", data, "--data.size=64"]
    if command == "inspect":
        return the_error(capsys, command, *own)
    training = [] if command == "fit" else [trained[2], *(["--output_dir=o"] if command in OWN else [])]
    return the_error(capsys, command, *trained[:2], *own, *TINY[:5], "--data.batch_size=4", *training)


OWN = ("explain", "evaluate")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        *((name, "fit") for name in SPOILT),
        *((name, "inspect") for name in ("NumpyImage", "ListSample", "SwappedBox")),
        *((name, command) for name in ("OneChannel", "NoneName", "NanBox") for command in OWN),
    ],
)
def test_a_sample_that_cannot_be_used_is_named(place, capsys, trained, name, command):
    spoil, words = SPOILT[name]
    error = said(capsys, trained, command, spoilt(name, spoil))
    words = [
        word for word in words if command != "explain" or word != "-0'"
    ]  # which begins with the first positive one
    assert all(word in error for word in [*words, PAGE]), error
    assert not list(Path().rglob("*.ckpt")) + list(Path().rglob("*.npy")) + list(Path().rglob("*.png"))


@pytest.mark.parametrize("command", ["fit", "inspect"])
@pytest.mark.parametrize("name", MISLABELLED)
def test_labels_of_another_form_are_named(place, capsys, trained, name, command):
    change, words = MISLABELLED[name]
    error = said(capsys, trained, command, mislabelled(name, change))
    assert all(word in error for word in [*words, PAGE]), error


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([20, 12, 4, 28], ["20, 12, 4, 28 has no extent"]),
        ([50, 50, 60, 60], ["50, 50, 60, 60 lies outside of the 40 x 40 pixels"]),
        ([torch.nan, 12, 4, 28], ["nan, 12, 4, 28 is not finite"]),
    ],
)
def test_a_box_that_the_transform_is_given_is_named_in_the_pixels_of_its_file(place, capsys, trained, box, words):
    class Given(Squares):
        image_ids = [f"named-{i}" for i in range(12)]

        def sample(self, i: int, pixels: np.ndarray) -> Sample:
            return self.transform(pixels, np.array([[4, 4, 9, 9], box]), np.array([0, 1]))

    error = said(capsys, trained, "fit", spoilt("GivenBoxes", lambda sample: sample, Given))
    assert all(word in error for word in ["image 'named-0'", "box 1", *words, PAGE]), error


class Numbered(Squares):
    """Numbers for names, integers for labels, and no patients."""

    def __getitem__(self, i: int) -> Sample:
        sample = super().__getitem__(i) | {"image_id": 10 * len(self.split) + i}
        return {key: value for key, value in sample.items() if key != "patient_id"}


class NumberedData(SquaresData):
    def build(self, split: str, transform: Any) -> Squares:
        return Numbered(split, super().build(split, transform).labels.to(torch.int64), transform)


class Tuples(ForeignData):
    """A loader whose batches are no dicts."""

    def loader(self, split: str) -> DataLoader:
        return DataLoader([(torch.zeros(3, 64, 64), torch.zeros(2))] * 8, batch_size=self.rows)


class Positional(ForeignData):
    def loader(self, split: str) -> DataLoader:
        return DataLoader(super().loader(split).dataset, self.rows)


class Holes(ForeignData):
    """Every third image cannot be read, which its own collate function does not know of."""

    @staticmethod
    def collate(samples: list[Sample]) -> Sample:
        return default_collate([sample | {"image_id": str(sample["image_id"])} for sample in samples])

    def explained_dataset(self, stage: str) -> list[Sample | None]:
        images = SquaresData().build("val" if stage == "validate" else "test", self.transform)
        return [None if i % 3 == 0 else images[i] for i in range(12)]


def test_numbers_for_names_and_labels_are_taken_and_each_image_is_a_patient_without_names_of_them(place, trained):
    own = ["--data", f"{__name__}.NumberedData", "--data.size=64"]
    main(["fit", *trained[:2], *own, *TINY[:5], "--data.batch_size=4"])
    main(["explain", *trained[:2], *own, trained[2], "--output_dir=e", "--trainer.enable_progress_bar=false"])
    with Path("e/index.csv").open() as file:
        assert {row["image"] for row in csv.DictReader(file)} == {str(40 + i) for i in range(12) if i % 3}
    main(["evaluate", *trained[:2], *own, trained[2], "--output_dir=v", *QUICK, "--methods=[Gradient]"])
    found = json.loads(Path("v/results.json").read_text())["protocol"]["data"]
    assert found["patients"] == found["images"] == 8


def test_images_that_could_not_be_read_are_left_out_before_a_collate_function_of_ones_own(place, trained):
    options = ["--data", f"{__name__}.Holes", "--data.size=64", "--trainer.enable_progress_bar=false"]
    main(["evaluate", *trained[:2], *options, trained[2], "--output_dir=v", *QUICK, "--methods=[Gradient]"])
    assert json.loads(Path("v/results.json").read_text())["protocol"]["data"]["images"] == 8


def test_batches_of_loaders_of_ones_own_are_checked(place, capsys, trained):
    error = said(capsys, trained, "fit", f"{__name__}.Tuples")
    assert all(word in error for word in ["the first sample of a batch is a list, not a dict", PAGE]), error


def test_a_sample_that_a_worker_reads_is_named_too(place, capsys, trained):
    data = spoilt("LaterImage", lambda sample: without("label")(sample) if sample["image_id"][-2:] == "-7" else sample)
    error = the_error(capsys, "fit", *trained[:2], "--data", data, *TINY[:6], "--data.num_workers=1")
    assert error.startswith("error: image 'val-7', sample 7 of the val split, has no 'label'") and PAGE in error


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_loader_that_lightning_cannot_build_anew_is_told(place, capsys, trained, command):
    error = said(capsys, trained, command, f"{__name__}.Positional")
    assert all(word in error for word in ["batch_size", "DataLoader(dataset, batch_size=...)", PAGE]), error


class Raising(ClassificationTask):
    """Fails in its own code once it is trained."""

    def score(self, output: torch.Tensor) -> torch.Tensor:
        raise ValueError("of its own")


class RaisingData(SquaresData):
    def explained_dataset(self, stage: str) -> Any:
        raise ValueError("of its own")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("explain", ["--model", f"{__name__}.Raising", "--model.backbone=test_resnet"]),
        ("evaluate", ["--data", f"{__name__}.RaisingData"]),
    ],
)
def test_an_error_of_ones_own_code_keeps_its_traceback(place, trained, command, options):
    with pytest.raises(ValueError, match="of its own") as found:
        main([command, *trained[:2], *options, *TINY, trained[2], "--output_dir=o"])
    assert not isinstance(found.value, SystemExit) and str(found.traceback[-1].path) == __file__
