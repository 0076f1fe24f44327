"""However many processes share the images, each image counts once: in scores, statistics, figures and tables."""

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import together
from tiny import CLASS_NAMES, SpyIBA, TinyData, TinyImages, TinyTask, tiny_trainer

from lightning_chex.data import PATHOLOGIES, SyntheticDataModule
from lightning_chex.explanations import IBACallback, MapWriter, PredictionWriter, SubgroupScores
from lightning_chex.tasks import ClassificationTask, RegressionTask

pytestmark = pytest.mark.filterwarnings("ignore")

COUNTS = (1, 2, 3, 13)
BACKBONE = "test_resnet"


class Grouped(TinyImages):
    """All but two are of one sex, and of a few it is not known; some patients have two images."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        sex = "F" if i < len(self) - 2 else "M" if i % 2 else ""
        return super().__getitem__(i) | {"patient_id": f"p{i // 2 if i < 4 else i}", "subgroups": {"sex": sex}}


class Still(ClassificationTask):
    """Trains and stays as it is, whatever images a process trains on."""

    def on_train_epoch_start(self) -> None:
        self.model.eval()


def classifier(classes: tuple[str, ...] = CLASS_NAMES) -> ClassificationTask:
    task = Still(classes, backbone=BACKBONE, optimizer="momentum", lr=1e-30, weight_decay=0)
    task.model = TinyTask(classes).model
    return task


def data_of(count: int, score: bool = False, offers: bool = True) -> TinyData:
    """A data module of somebody else, whose loaders Lightning shares out among the processes."""
    data = TinyData(score=score, num_val=count)
    data.val.__class__ = Grouped
    data.test = data.val
    if not offers:
        data.explained_dataset = None  # type: ignore[assignment]
    return data


def trainer_of(folder: Path, processes: int, *callbacks: Any, **options: Any) -> Any:
    several = {"devices": processes, "strategy": "ddp"} if processes > 1 else {}
    return tiny_trainer(folder, *callbacks, num_sanity_val_steps=0, limit_train_batches=1, **several, **options)


def run(stage: str, count: int, folder: Path, processes: int, offers: bool = True, **options: Any) -> dict[str, Any]:
    """Explain with two callbacks, one all images, one three of them; say what was logged, learnt and drawn."""
    attributors = SpyIBA(), SpyIBA()
    drawn = stage == "validate" and count == 13
    everything = IBACallback(attributors[0], num_images=-1, batch_size=3, top_fraction=0.3, save_pictures=False)
    some = IBACallback(attributors[1], num_images=3, top_fraction=0.3, name="some", save_pictures=drawn)
    trainer = trainer_of(folder, processes, everything, some, SubgroupScores(fewest=3), **options)
    task, data = classifier(), data_of(count, offers=offers)
    if stage == "test":  # by the statistics of a validation
        trainer.validate(task, data, verbose=False)
    work = trainer.fit if stage == "fit" else getattr(trainer, stage)
    work(task, data, **({} if stage == "fit" else {"verbose": False}))
    pictures = folder / "explanations" / "validate_some"
    return {
        "logged": dict(trainer.callback_metrics),
        "statistics": [spy.state_dict() for spy in attributors],
        "explained": [sum(len(images) for images in spy.images) for spy in attributors],
        "drawn": sorted(path.name for path in pictures.glob("*.png")) if trainer.is_global_zero else None,
    }


def within_budget(count: int, folder: Path, processes: int) -> dict[str, Any]:
    """The budget of the last process is spent at its first batch, that of the others never."""
    last = int(os.environ.get("LOCAL_RANK", "0")) == processes - 1
    explaining = IBACallback(SpyIBA(), num_images=-1, batch_size=2, time_budget=1e-9 if last else 1e9)
    trainer = trainer_of(folder, processes, explaining)
    trainer.validate(classifier(), data_of(count), verbose=False)
    pictures = folder / "explanations" / "validate"
    return {
        "explained": sum(len(images) for images in explaining.attributor.images),
        "logged": trainer.callback_metrics["val/iba_images"],
        "drawn": sorted(path.name for path in pictures.glob("*.png")) if trainer.is_global_zero else None,
    }


def regression(count: int, folder: Path, processes: int) -> dict[str, Any]:
    trainer = trainer_of(folder, processes, SubgroupScores(fewest=3))
    task = RegressionTask((0, 12), backbone=BACKBONE)
    task.model = TinyTask(()).model
    trainer.validate(task, data_of(count, score=True), verbose=False)
    return {"logged": dict(trainer.callback_metrics)}


def predicted(count: int, folder: Path, processes: int) -> list[str]:
    """Names in the table this process has written of our own images."""
    writer = PredictionWriter()
    data = SyntheticDataModule(num_train=2, num_val=1, num_test=count, size=32, batch_size=4)
    trainer_of(folder, processes, writer).predict(classifier(PATHOLOGIES), data, return_predictions=False)
    assert writer.path is not None
    with writer.path.open(newline="") as file:
        return [row[0] for row in list(csv.reader(file))[1:]]


def explained(count: int, folder: Path, processes: int) -> list[str]:
    writer = MapWriter(SpyIBA(), folder, targets="top")
    data = SyntheticDataModule(num_train=60, num_val=1, num_test=count, size=32, batch_size=4)
    trainer_of(folder, processes, writer).predict(classifier(PATHOLOGIES), data, return_predictions=False)
    return (folder / "index.csv").read_text().splitlines()


def everything(folder: Path, processes: int) -> dict[str, Any]:
    """All that is compared, in one go: to start a process takes longer."""
    found: dict[str, Any] = {}
    for count in COUNTS:
        for stage in ("validate", "test", "fit"):
            found[f"{stage} {count}"] = run(stage, count, folder / f"{stage}{count}", processes)
        found[f"regression {count}"] = regression(count, folder, processes)
        found[f"predicted {count}"] = predicted(count, folder / f"predicted{count}", processes)
    found["not offered 13"] = run("validate", 13, folder / "not offered", processes, offers=False)
    for count in (2, 13):
        found[f"budget {count}"] = within_budget(count, folder / f"budget{count}", processes)
    found["explained 2"] = explained(2, folder / "explained", processes)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, Any]:
    return everything(tmp_path_factory.mktemp("alone"), 1)


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, tmp_path_factory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("together")
    return together(request.param, everything, folder / "results", folder, request.param)


def comparable(logged: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on how fast a process is."""
    return {key: v for key, v in logged.items() if "train" not in key and not key.endswith(("_seconds", "_time_share"))}


RUNS = [f"{stage} {count}" for stage in ("validate", "test", "fit") for count in COUNTS] + ["not offered 13"]


@pytest.mark.parametrize("name", RUNS + [f"regression {count}" for count in COUNTS])
def test_all_processes_log_what_one_does(alone, ranks, name):
    # each trains on images of its own, so the training's loss is of no use here
    expected = comparable(alone[name]["logged"])
    assert len(expected) >= 3
    for rank in ranks:
        logged = comparable(rank[name]["logged"])
        torch.testing.assert_close(logged, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", RUNS)
def test_statistics_rest_on_every_image_once(alone, ranks, name):
    # of both callbacks: what one of them explains teaches the other nothing
    expected = alone[name]["statistics"]
    count = int(name.split()[-1])
    # the first explains every image, so nothing else is left to learn from; the second leaves its three out
    assert [int(state["count"]) for state in expected] == [count, count - 3 if count > 4 else count]
    for rank in ranks:
        torch.testing.assert_close(rank[name]["statistics"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_every_image_is_explained_once(alone, ranks, name):
    shares = [rank[name]["explained"] for rank in ranks]
    assert [sum(share) for share in zip(*shares, strict=True)] == alone[name]["explained"]
    count, runs = int(name.split()[-1]), 2 if name.startswith("test") else 1  # a test comes after a validation
    assert alone[name]["explained"] == ([0, 0] if count < 2 else [runs * count, runs * min(3, count)])


@pytest.mark.parametrize("name", ["validate 13", "not offered 13"])
def test_the_same_images_are_drawn_in_the_same_order(alone, ranks, name):
    assert [drawn.split("__")[0] for drawn in alone[name]["drawn"]] == [f"{i:03d}_image-1-{i}" for i in range(3)]
    assert ranks[0][name]["drawn"] == alone[name]["drawn"]


def test_when_the_budget_of_one_process_is_spent_all_stop_after_the_same_batch(alone, ranks):
    assert alone["budget 13"]["explained"] == 2
    processes = len(ranks)
    assert [rank["budget 13"]["explained"] for rank in ranks] == [2] * processes
    assert [float(rank["budget 13"]["logged"]) for rank in ranks] == [2 * processes] * processes
    # the first of all images, not the first of some process
    drawn = [name.split("__")[0] for name in ranks[0]["budget 13"]["drawn"]]
    assert drawn == [f"{i:03d}_image-1-{i}" for i in range(2 * processes)]


def test_a_process_without_images_holds_up_no_other(ranks):
    assert [float(rank["budget 2"]["logged"]) for rank in ranks] == [2] * len(ranks)
    assert sum(rank["budget 2"]["explained"] for rank in ranks) == 2


@pytest.mark.parametrize("count", COUNTS)
def test_every_image_is_in_one_table_once(alone, ranks, count):
    expected = alone[f"predicted {count}"]
    assert len(set(expected)) == count
    assert sorted(sum((rank[f"predicted {count}"] for rank in ranks), [])) == sorted(expected)


def test_a_map_is_written_for_fewer_images_than_processes(alone, ranks):
    kept = [[line.split(",")[:2] for line in found["explained 2"]] for found in (alone, ranks[0])]
    assert kept[0] == kept[1] and len(kept[0]) == 3  # with the header
