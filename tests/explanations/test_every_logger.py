"""What a training shows through several loggers at once, read back from what each has written."""

import csv
import io
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import CLASS_NAMES, LAYER, SpyIBA, TinyData, TinyTask, tiny_trainer

from lightning_chex.attribution import IBA, GradCAM, InverseIBA
from lightning_chex.explanations import IBACallback
from lightning_chex.report import TABLE_COLUMNS, Picture, adapters_of

pytestmark = pytest.mark.filterwarnings("ignore")

EPOCHS, SHOWN = 2, 3
METHODS = ("iba", "inverse", "grad_cam")


class Own(Logger):
    """A logger of somebody else that shows pictures itself."""

    name, version = "own", "0"

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple] = []

    def log_metrics(self, metrics, step=None) -> None:
        pass

    def log_hyperparams(self, params) -> None:
        pass

    def pictures(self, key, pictures, step) -> None:
        self.shown.append((key, len(pictures), step))

    def table(self, key, columns, rows, step=None) -> None:
        self.shown.append((key, len(rows), step))

    def file(self, key, path, step) -> None:
        self.shown.append((key, path.name, step))


def methods() -> dict:
    return {
        "iba": IBA(layer=LAYER, steps=2),
        "inverse": InverseIBA(layer=LAYER, steps=2),
        "grad_cam": GradCAM(layer=LAYER),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loggers")
    loggers = [CSVLogger(folder, "csv"), TensorBoardLogger(folder, "board"), Own()]
    explaining = IBACallback(attributors=methods(), num_images=SHOWN, top_fraction=0.2)
    options = {"max_epochs": EPOCHS, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    trainer = tiny_trainer(folder, explaining, logger=loggers, **options)
    trainer.fit(TinyTask(), TinyData())
    for logger in loggers:
        logger.finalize("success")
    events = EventAccumulator(loggers[1].log_dir, size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    return SimpleNamespace(
        folder=loggers[0].log_dir, events=events.Reload(), own=loggers[2], explaining=explaining, trainer=trainer
    )


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_tensorboards_event_file_holds_pictures_curves_and_the_table(run):
    tags = run.events.Tags()
    for method in METHODS:
        assert len(run.events.Scalars(f"val/{method}_iou")) == EPOCHS
        for number in range(SHOWN):
            pictures = run.events.Images(f"val/{method}_maps/{number:02d}")
            assert [picture.step for picture in pictures] == [2, 4]
            drawn = np.asarray(Image.open(io.BytesIO(pictures[0].encoded_image_string)))
            # a band of 3 rows with the label is above the pictures of 16 rows
            assert drawn.shape == (3 + 16, 36, 3) and (drawn[3:, 16:20] == 255).all()
    assert {"val/iba_film", "val/grad_cam_film", "val/iba_curves"} <= set(tags["images"])
    tables = [event.tensor_proto.string_val[0].decode() for event in run.events.Tensors("val/iba_table/text_summary")]
    assert len(tables) == EPOCHS and tables[0].splitlines()[0] == f"| {' | '.join(TABLE_COLUMNS)} |"
    assert len(tables[0].splitlines()) == 2 + SHOWN * len(METHODS)
    everything = str([tables, tags])
    assert "image-1-" not in everything  # the images' names


def test_the_csv_loggers_folder_holds_them_too(run):
    folder = SimpleNamespace(table=f"{run.folder}/val/iba_table/00000004.csv", maps=f"{run.folder}/val/inverse_maps")
    rows = rows_of(folder.table)
    assert [row["method"] for row in rows] == [name for name in METHODS for _ in range(SHOWN)]
    with Image.open(f"{folder.maps}/00000004/02.png") as drawn:
        assert drawn.size == (36, 3 + 16)
    captions = rows_of(f"{folder.maps}/00000004/captions.csv")
    assert [row["caption"].split(" | ")[:2] for row in captions] == [[str(n), CLASS_NAMES[n % 2]] for n in range(SHOWN)]
    with Image.open(f"{run.folder}/val/iba_film.png") as film:
        film.load()


def test_a_logger_that_shows_pictures_itself_needs_no_file(run):
    per_epoch = [(f"val/{name}_maps", SHOWN) for name in METHODS] + [("val/iba_table", SHOWN * len(METHODS))]
    expected = [(key, count, step) for step in (2, 4) for key, count in per_epoch]
    assert run.own.shown[: len(expected)] == expected
    assert {name for _, name, _ in run.own.shown[len(expected) :]} == {
        *("film.png", "film_inverse.png", "film_grad_cam.png", "curves.png", "table.csv")
    }


def test_methods_share_images_statistics_and_controls(run):
    iba, inverse, grad_cam = run.explaining.attributors.values()
    assert iba.statistics is inverse.statistics and iba.num_observed == 7 and grad_cam.num_observed is None
    metrics = run.trainer.callback_metrics
    for control in ("random", "every_pixel"):
        assert len({float(metrics[f"val/{name}_iou_{control}"]) for name in METHODS}) == 1
    assert len({float(metrics[f"val/{name}_iou"]) for name in METHODS}) > 1


def test_each_method_gives_what_it_gives_alone(run):
    data = TinyData()
    for name, attributor in methods().items():
        logged = []
        for options in ({"attributors": methods()}, {"attributor": attributor, "name": name}):
            explaining = IBACallback(num_images=SHOWN, save_pictures=False, top_fraction=0.2, **options)
            logged += tiny_trainer(run.folder, explaining).validate(TinyTask(), data, verbose=False)
        assert logged[1][f"val/{name}_iou"] == logged[0][f"val/{name}_iou"]


def test_the_whole_course_is_one_table_and_one_strip(run):
    rows = rows_of(f"{run.folder}/explanations/table.csv")
    assert len(rows) == EPOCHS * SHOWN * len(METHODS) and list(rows[0]) == TABLE_COLUMNS
    last = [row for row in rows if row["method"] == "inverse" and row["epoch"] == "1"]
    mean = sum(float(row["iou"]) for row in last) / SHOWN
    assert mean == pytest.approx(float(run.trainer.callback_metrics["val/inverse_iou"]), abs=1e-5)
    assert sorted(row["rank"] for row in last) == ["1", "2", "3"]
    assert all(0 <= float(row["pointing"]) <= 1 for row in last)
    assert {row["rule"] for row in rows} == {"strongest 20 % of the pixels"}


def fake_mlflow(monkeypatch) -> SimpleNamespace:
    """A client that keeps what it is given, with the signatures of ``mlflow.MlflowClient``; in a module of its name."""
    kept = SimpleNamespace(images=[], tables=[], artifacts=[])

    class Client:
        def log_image(self, run_id, image, artifact_file=None, *, key=None, step=None, timestamp=None) -> None:
            kept.images.append((run_id, key, step, image))

        def log_table(self, run_id, data, artifact_file) -> None:
            kept.tables.append((run_id, artifact_file, data))

        def log_artifact(self, run_id, local_path, artifact_path=None) -> None:
            kept.artifacts.append((run_id, local_path, artifact_path))

    module = ModuleType("pytorch_lightning.loggers.mlflow_of_test.mlflow")
    kind = type("MLFlowLogger", (), {"experiment": Client(), "run_id": "r1", "__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kept.logger = kind()
    return kept


def test_mlflow_gets_images_with_steps_tables_and_artifacts(monkeypatch, tmp_path):
    kept = fake_mlflow(monkeypatch)
    (adapter,) = adapters_of([kept.logger], {})
    grey = np.zeros((4, 4), np.uint8)
    drawn = np.full((4, 12, 3), 7, np.uint8)
    adapter.pictures("val/iba_maps", [Picture("0 | Mass", grey, drawn), Picture("1 | Mass", grey, drawn + 1)], 94)
    adapter.table("val/iba_table", ["a", "b"], [[1, "x"], [2, None]], 94)
    adapter.file("val/iba_film", tmp_path / "film.png", 94)
    assert [(run, key, step) for run, key, step, _ in kept.images] == [
        ("r1", "val/iba_maps/00", 94),
        ("r1", "val/iba_maps/01", 94),
    ]
    assert (kept.images[1][3] == drawn + 1).all()
    assert kept.tables[1] == ("r1", "val/iba_table/00000094.json", {"a": [1, 2], "b": ["x", None]})
    assert json.dumps(kept.tables[0][2]) and kept.artifacts == [("r1", str(tmp_path / "film.png"), "val/iba_film")]


def test_a_logger_of_scalars_alone_has_no_board():
    assert adapters_of([SimpleNamespace(log_metrics=print)]) == []


def test_checkpoints_hold_all_methods_statistics_once(run):
    state = run.explaining.state_dict()
    first = IBACallback(attributors=methods())
    first.load_state_dict(state)
    for name in ("iba", "inverse"):
        torch.testing.assert_close(
            first.attributors[name].statistics.state_dict(), run.explaining.attributors[name].statistics.state_dict()
        )
    assert "others" not in state and first.attributors["iba"].statistics is first.attributors["inverse"].statistics
    elsewhere = IBACallback(attributors={"grad_cam": GradCAM(layer=LAYER), "far": IBA(layer="1"), "near": SpyIBA()})
    tiny_trainer(run.folder, elsewhere).validate(TinyTask(), TinyData(), verbose=False)
    again = IBACallback(attributors={"grad_cam": GradCAM(layer=LAYER), "far": IBA(layer="1"), "near": SpyIBA()})
    again.load_state_dict(elsewhere.state_dict())
    for name in ("far", "near"):
        assert again.attributors[name].num_observed == 10
