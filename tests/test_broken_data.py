"""Whatever a data set of one's own gives that cannot be used is told in one line, with the value and the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY, the_error
from own_data import Squares, SquaresData
from test_own_data import configuration

from lightning_chex.cli import main
from lightning_chex.data.contract import PAGE

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
    "SwappedBox": (boxed([[2.0, 2, 9, 9], [20.0, 4, 9, 9]], [0, 0]), ["-0'", "number 1", "20.0, 4.0, 9.0, 9.0"]),
    "OutsideBox": (boxed([[70.0, 4, 90, 9]], [0]), ["-0'", "number 0", "70.0, 4.0, 90.0, 9.0", "64 x 64"]),
    "NanBox": (boxed([[torch.nan, 4, 90, 9]], [0]), ["-0'", "number 0", "nan"]),
    "OtherCount": (boxed([[4.0, 4, 9, 9]], [0, 1]), ["-0'", "(1, 4)", "(2,)"]),
    "UnknownClass": (boxed([[4.0, 4, 9, 9]], [2]), ["-0'", "class 2", "2 class_names"]),
    "UnnamedBoxes": (with_("boxes", torch.zeros(0, 4)), ["-0'", "no 'box_labels'"]),
}

MISLABELLED: dict[str, tuple[Callable[[torch.Tensor], Any], list[str]]] = {
    "FlatLabels": (lambda labels: labels[:, 0], ["shape (12,)", "2 class_names"]),
    "ListedLabels": (lambda labels: labels.tolist(), ["type list", "12 samples"]),
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


@pytest.mark.parametrize("command", ["fit", "inspect", "evaluate"])
@pytest.mark.parametrize("name", SPOILT)
def test_a_sample_that_cannot_be_used_is_named(place, capsys, trained, name, command):
    spoil, words = SPOILT[name]
    error = said(capsys, trained, command, spoilt(name, spoil))
    assert all(word in error for word in [*words, PAGE]), error
    assert not [path for path in Path().rglob("*") if path.is_file() and path.name != "config.yaml"]
