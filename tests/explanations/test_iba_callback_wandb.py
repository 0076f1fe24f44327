"""What many validations with a W&B logger leave behind, on the disk and in memory, and what the run keeps of them."""

import gc
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import wandb
import wandb_reader
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger
from tiny import CLASS_NAMES, LAYER, TinyData, TinyTask, tiny_trainer
from torch import Tensor

from lightning_chex.attribution import IBA
from lightning_chex.explanations import IBACallback
from lightning_chex.report import TABLE_COLUMNS, Explanation, Picture, adapters_of

pytestmark = pytest.mark.filterwarnings("ignore")

VALIDATIONS, WARM = 6, 2
"""What is made once, such as the optimiser's state and caches of fonts, is there after the first ones."""
SHOWN = 2
KINDS_OF_MEDIA = ("boxes2D", "mask", "table", "images")
KINDS = (wandb.Table, wandb.Image, wandb.Artifact, Explanation, Figure, Image.Image, Tensor)


class Watch(Callback):
    """Lists, after every validation, what lies in some folders and the living objects of the ``KINDS``."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self.left: list[set[Path]] = []
        self.objects: list[Counter[type]] = []

    def on_validation_end(self, trainer, pl_module) -> None:
        gc.collect()
        self.left.append({path for folder in self.folders for path in folder.rglob("*")})
        # by type(): isinstance would wake the libraries' lazily loaded modules
        self.objects.append(Counter(type(thing) for thing in gc.get_objects() if issubclass(type(thing), KINDS)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny offline run, explained at each of its validations, whose folder was moved when it had ended."""
    folder = tmp_path_factory.mktemp("wandb")
    root, temporary = folder / "root", folder / "temporary"
    root.mkdir()
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(root / "wandb" / "data"))
        patch.setattr(tempfile, "tempdir", str(temporary))
        logger = WandbLogger(offline=True, save_dir=root, project="tiny")
        watch = Watch(root, temporary)
        explaining = IBACallback(IBA(layer=LAYER, steps=2), num_images=SHOWN)
        options = {"max_epochs": VALIDATIONS, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
        tiny_trainer(root, explaining, watch, logger=logger, **options).fit(TinyTask(), TinyData())
        logger.experiment.finish()
        wandb.teardown()  # waits until the file is whole
    lies = Path(shutil.move(wandb_reader.run_file(root).parent, folder / "moved"))
    file = wandb_reader.run_file(lies)
    return SimpleNamespace(watch=watch, root=root, files=lies / "files", records=wandb_reader.records(file))


def test_a_validation_leaves_its_pictures_and_its_table_alone(run):
    after = run.watch.left
    assert len(after) == VALIDATIONS
    for earlier, later in zip(after[WARM - 1 :], after[WARM:], strict=False):
        assert earlier <= later  # nothing that an earlier one has left is lost
        new = later - earlier
        # boxes, two masks of each map (of equal ones one file), and the table; not the X-rays again
        media = [path for path in new if "media" in path.parts]
        kinds = Counter(next(kind for kind in KINDS_OF_MEDIA if kind in path.parts) for path in media)
        assert kinds["boxes2D"] in (1, SHOWN) and 1 <= kinds["mask"] <= 2 * SHOWN and kinds["table"] == 1, new
        assert kinds["images"] == 0, new
        # the pictures as written, in a folder, the sheet beside it, and a frame of the film strip
        assert len([path for path in new if "explanations" in path.parts]) == SHOWN + 3, new
        assert len(new) == len(media) + SHOWN + 3, new
    assert not list(run.root.rglob("staging"))


def test_a_validation_keeps_nothing_in_memory(run):
    counts = run.watch.objects
    assert counts[WARM][Tensor] > 10  # the network: there is something to count
    assert all(count == counts[WARM] for count in counts[WARM:])


def test_the_run_holds_tables_and_pictures_wherever_it_is_moved(run):
    rows = wandb_reader.history(run.records)
    tables = [row["val/iba_table/path"] for row in rows if row.get("val/iba_table/_type") == "table-file"]
    pictures = [name for row in rows for name in row.get("val/iba_maps/filenames", [])]
    assert len(tables) == VALIDATIONS and len(pictures) == VALIDATIONS * SHOWN
    assert len(set(pictures)) == SHOWN and pictures == pictures[:SHOWN] * VALIDATIONS  # each X-ray is sent once
    for epoch, name in enumerate(tables):
        table = json.loads((run.files / name).read_text())
        assert table["columns"] == TABLE_COLUMNS
        assert [row[:3] for row in table["data"]] == [[epoch, n, CLASS_NAMES[n % 2]] for n in range(SHOWN)]
    for name in pictures:
        with Image.open(run.files / name) as picture:
            assert picture.size == (16, 16) and picture.mode == "L"
    sent = {file.path for record in run.records for file in record.files.files}
    assert sent >= {*tables, *pictures}  # by wandb sync
    assert not [record for record in run.records if record.HasField("artifact")]


def test_best_values_stand_for_the_run(run):
    metrics = {record.metric.name: record.metric for record in run.records if record.HasField("metric")}
    for key in ("val/iba_iou", "val/auroc"):
        assert metrics[key].summary.max and not metrics[key].summary.min
    assert metrics["val/loss"].summary.min and metrics["val/iba_iou"].step_metric == "trainer/global_step"


def test_the_film_strip_and_the_curves_end_the_run(run):
    rows = wandb_reader.history(run.records)
    for key in ("val/iba_film", "val/iba_curves"):
        (name,) = [row[f"{key}/path"] for row in rows if f"{key}/path" in row]
        with Image.open(run.files / name) as picture:
            picture.load()
            assert picture.width > 300


def test_a_disabled_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    logger = WandbLogger(save_dir=tmp_path, mode="disabled")
    (adapter,) = adapters_of([logger], {"val/loss": "min"})
    adapter.table("table", ["column"], [[1]])
    grey = np.zeros((4, 4), np.uint8)
    adapter.pictures("pictures", [Picture("0", grey, grey[..., None].repeat(3, axis=2))], 0)
    assert logger.experiment.disabled
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    logger.experiment.finish()


@pytest.mark.parametrize("offline", [False, True])
def test_a_run_that_is_online_keeps_the_table_as_an_artifact(monkeypatch, tmp_path, offline):
    class Artifact:
        def __init__(self, name: str, type: str) -> None:
            self.name, self.files = name, {}

        def add_file(self, path: str, name: str) -> None:
            self.files[name] = Path(path).read_text()

    monkeypatch.setattr(wandb, "Artifact", Artifact)
    kept: list[Artifact] = []
    run = SimpleNamespace(disabled=False, offline=offline, id="r1", log_artifact=kept.append)
    logger = type("WandbLogger", (), {"__module__": "loggers.wandb", "experiment": run})()
    (tmp_path / "table.csv").write_text("epoch,number\n")
    (adapter,) = adapters_of([logger])
    adapter.file("val/iba_course", tmp_path / "table.csv", 4)
    assert [(one.name, one.files) for one in kept] == (
        [] if offline else [("val-iba_course-r1", {"table.csv": "epoch,number\n"})]
    )
