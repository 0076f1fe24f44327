"""Which class of which image is explained, and what an explanation holds."""

import pytest
import torch
from tiny import SIDE
from torch import nn

from lightning_chex.attribution import IBA, Attributor, InverseIBA
from lightning_chex.explanations import Explainer

NAMES = ["a", "b", "c"]


class Known(nn.Module):
    """Outputs that are known beforehand."""

    def __init__(self, *rows: list[float]) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.rows[: len(images)]


class Columns(Attributor):
    """A map whose strongest pixels are the left columns, as many as the target's index says."""

    explains_class = None

    def maps(self, model, images, target):
        saliency = torch.zeros(len(target), SIDE, SIDE)
        for one, index in zip(saliency, target.tolist(), strict=True):
            one[:, : int(index) + 1] = 1.0
        return saliency


def batch(labels: list, boxes: list[list[tuple]] | None = None) -> dict:
    """Images with labels and, for each image, boxes as (class, x1, y1, x2, y2)."""
    made = {
        "image": torch.rand(len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),
        "label": torch.tensor(labels, dtype=torch.float32),
        "image_id": [f"id{i}" for i in range(len(labels))],
        "place": list(range(len(labels))),
    }
    if boxes is not None:
        made["boxes"] = [torch.tensor([b[1:] for b in each], dtype=torch.float32).reshape(-1, 4) for each in boxes]
        made["box_labels"] = [torch.tensor([b[0] for b in each], dtype=torch.long) for each in boxes]
    return made


def explainer(network: nn.Module, names: list[str] = NAMES, fraction: float = 0.05) -> Explainer:
    return Explainer(Columns(), network, names, fraction, torch.device("cpu"))


@pytest.mark.parametrize(
    ("label", "boxes", "explained"),
    [
        (
            [1, 0, 1],
            [(2, 0, 0, 4, 4), (2, 8, 8, 9, 9), (1, 0, 0, 4, 4)],
            ["b", "c"],
        ),  # boxes before labels, once a class
        ([1, 0, 1], [], ["a", "c"]),  # else what the image shows
        ([1, 0, 1], None, ["a", "c"]),
        ([0, 0, 0], [], ["b"]),  # else what the model finds likeliest
    ],
)
def test_classes_with_boxes_then_labels_then_the_likeliest_are_explained(label, boxes, explained):
    found = list(explainer(Known([-1.0, 3.0, 2.0])).explain([batch([label], None if boxes is None else [boxes])]))
    assert [e.target_name for e in found] == explained
    assert [NAMES[e.target] for e in found] == explained


def test_an_explanation_says_what_was_predicted_and_what_is_true():
    network = Known([0.0, 2.0, -2.0], [1.0, 0.0, 0.0])
    made = batch([[0, 1, 0], [1, 0, 1]], [[(1, 0, 0, 2, SIDE), (1, 4, 0, 5, 1)], []])
    found = list(explainer(network, fraction=1 / SIDE).explain([made]))
    assert [(e.image_id, e.target_name, e.truth) for e in found] == [("id0", "b", 1), ("id1", "a", 1), ("id1", "c", 1)]
    assert found[0].prediction == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert found[0].boxes.tolist() == [[0, 0, 2, SIDE], [4, 0, 5, 1]] and len(found[1].boxes) == 0
    # the map of class 1 marks two columns, the union of the boxes has one pixel more
    assert found[0].iou == pytest.approx(2 * SIDE / (2 * SIDE + 1)) and found[1].iou is None and found[2].iou is None
    assert found[0].bits == 2 * SIDE
    for one in found:
        assert one.image.shape == (SIDE, SIDE) and one.image.min() == 0 and one.image.max() == 1


def test_scores_average_the_boxed_maps_alone():
    network = Known([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    measured = explainer(network, fraction=1 / SIDE)
    first = batch([[1, 0, 0], [1, 0, 0]], [[(0, 0, 0, 1, SIDE)], [(0, 0, 0, 4, SIDE)]])
    second = batch([[0, 0, 1]], [[]])
    list(measured.explain([first, second]))
    scores = measured.scores()
    assert scores["iou"].item() == pytest.approx((1 + 1 / 4) / 2)
    assert scores["iou/a"].item() == pytest.approx((1 + 1 / 4) / 2)
    assert scores["iou_every_pixel"].item() == pytest.approx((1 / SIDE + 4 / SIDE) / 2)
    assert "iou/b" not in scores and "iou/c" not in scores


def test_a_single_class_has_its_score():
    measured = explainer(Known([0.0], [0.0]), names=["a"], fraction=1 / SIDE)
    list(measured.explain([batch([[1], [1]], [[(0, 0, 0, 1, SIDE)], [(0, 0, 0, 4, SIDE)]])]))
    scores = measured.scores()
    assert scores["iou"].item() == scores["iou/a"].item() == pytest.approx((1 + 1 / 4) / 2)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_no_boxed_map_gives_no_score():
    measured = explainer(Known([0.0, 0.0, 0.0]))
    list(measured.explain([batch([[1, 0, 0]], [[]])]))
    assert measured.scores() == {}


def test_a_score_is_explained_once_per_image_and_is_never_measured():
    measured = explainer(Known([4.5], [7.0]), names=[])
    found = list(measured.explain([batch([3.0, 8.0])]))
    assert [(e.target, e.target_name, e.prediction, e.truth) for e in found] == [
        (None, "severity", 4.5, 3.0),
        (None, "severity", 7.0, 8.0),
    ]
    assert all(e.iou is None and len(e.boxes) == 0 for e in found) and measured.scores() == {}


def test_images_without_names_are_numbered():
    made = batch([[1, 0, 0]])
    del made["image_id"]
    (found,) = explainer(Known([0.0, 0.0, 0.0])).explain([made])
    assert found.image_id == "image 0"


def test_methods_share_what_they_run_of_the_images_of_a_validation():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(2), nn.AvgPool1d(SIDE * SIDE))
    network.append(nn.Flatten()).append(nn.Linear(4, 3))
    methods = {name: kind("0", steps=2) for name, kind in (("iba", IBA), ("inverse", InverseIBA))}
    for method in methods.values():
        method.fit(network, [torch.rand(60, 3, SIDE, SIDE)])
    runs: list[int] = []
    network[0].register_forward_hook(lambda module, inputs, output: runs.append(len(output)))
    found = {}
    for names in (["iba"], ["inverse"], ["iba", "inverse"]):
        runs.clear()
        chosen = Explainer({name: methods[name] for name in names}, network, NAMES, 0.05, torch.device("cpu"))
        with torch.inference_mode():  # as in Lightning's hooks
            explained = list(chosen.explain([batch([[1, 0, 1], [0, 1, 0]])]))
        found["+".join(names)] = [one.saliency for one in explained], list(runs)
    assert found["iba+inverse"][1] == found["iba"][1] == found["inverse"][1]
    alone = found["iba"][0] + found["inverse"][0]
    assert len(alone) == len(found["iba+inverse"][0]) > 2
    assert all(torch.equal(one, other) for one, other in zip(alone, found["iba+inverse"][0], strict=True))
