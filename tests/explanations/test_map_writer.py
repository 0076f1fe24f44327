"""A data set is explained in batches, in one go or in several, by one process or two, to the same files."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import LAYER, SpyIBA, TinyData, TinyTask, tiny_trainer

from lightning_chex.attribution import IBA, GradCAM, LayerError, MultiLayerIBA
from lightning_chex.data import DETECTORS, PATHOLOGIES, SyntheticCXR, SyntheticDataModule
from lightning_chex.explanations import IBACallback, MapWriter
from lightning_chex.maps import ChosenTargets, Drawn, MapFolder, read_saliency
from lightning_chex.maps import store as map_store
from lightning_chex.runs import undisturbed

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = list(PATHOLOGIES)


class Predicting(TinyTask):
    def predict_step(self, batch, batch_idx):
        output = self(batch["image"])
        prediction = output.sigmoid() if self.class_names else output[:, 0]
        return {"image_id": batch["image_id"], "prediction": prediction}


class Mute(TinyTask):
    def __init__(self):
        super().__init__(PATHOLOGIES)

    def predict_step(self, batch, batch_idx):
        return self(batch["image"])


class Wide(Predicting):
    def __init__(self, class_names):
        super().__init__((*class_names, "another"))
        self.class_names = list(class_names)


class Breaking(SpyIBA):
    """Fails at one of its batches, if asked to."""

    def __init__(self, breaks_at=None, **options):
        super().__init__(**options)
        self._breaks_at = breaks_at

    def compute(self, *arguments):
        if len(self.images) == self._breaks_at:
            raise OSError("the power has failed")
        return super().compute(*arguments)


def phantom(**options):
    options = {"num_train": 60, "num_val": 2, "num_test": 30, "size": 32, "batch_size": 4, **options}
    return SyntheticDataModule(**options)


def explain(folder, attributor=None, task=None, data=None, root=None, trainer_options=None, **options):
    attributor = attributor or Breaking()
    writer = MapWriter(attributor, folder, **options)
    trainer = tiny_trainer(root or folder.parent, writer, **(trainer_options or {}))
    trainer.predict(task or Predicting(PATHOLOGIES), data or phantom(), return_predictions=False)
    return attributor


def rows_of(folder):
    with (folder / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_maps(folder, other, **tolerance):
    for mine, theirs in zip(rows_of(folder), rows_of(other), strict=True):
        assert all(mine[key] == theirs[key] for key in ("image", "target", "truth", "targets", "pixels"))
        np.testing.assert_allclose(read_saliency(folder, mine), read_saliency(other, theirs), **tolerance)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An explanation made in one go."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    explain(folder, overlays=True)
    return folder


def test_maps_and_index_say_what_attribute_and_the_model_say(whole):
    data, task = phantom(), Predicting(PATHOLOGIES).eval()
    data.setup()
    iba = IBA(layer=LAYER, steps=2)
    train = data.parts()["train"]
    iba.fit(task.model, [torch.stack([train[i]["image"] for i in range(60)])])
    rows = rows_of(whole)
    test = data.dataset("test")
    expected = [(i, k) for i in range(30) for k in range(8) if test.labels[i, k]]
    assert [(row["image"], row["target"]) for row in rows] == [(test.image_ids[i], NAMES[k]) for i, k in expected]
    assert len(expected) > 12 and list(rows[0]) == [
        "image", "target", "prediction", "truth", "bits", "empty", "convergence", "pixels", "width", "height",
        "targets", "file", "row",
    ]  # fmt: skip
    for (i, k), row in zip(expected, rows, strict=True):
        image = test[i]["image"][None]
        saliency = read_saliency(whole, row)
        assert saliency.dtype == torch.float32 and saliency.shape == (32, 32) and row["pixels"] == "32x32"
        by_hand = iba.explain(task.model, image, torch.tensor([k]))
        np.testing.assert_allclose(saliency, by_hand.maps[0], rtol=2e-3, atol=1e-5)
        assert float(row["convergence"]) == pytest.approx(float(by_hand.convergence), rel=2e-2)
        assert float(row["bits"]) == pytest.approx(float(saliency.sum()), rel=1e-4)
        assert row["empty"] == ("1" if float(saliency.sum()) < 10 else "0")  # log2 of 32 x 32
        with torch.no_grad():
            assert float(row["prediction"]) == pytest.approx(float(task.model(image).sigmoid()[0, k]), rel=1e-4)
        assert row["truth"] == "1" and int(row["targets"]) == int(test.labels[i].sum())
        assert (row["width"], row["height"]) == ("", "")  # the phantom has no files
        assert Image.open(whole / "overlays" / f"{row['image']}__{row['target']}.png").size == (32, 32)
    record = json.loads((whole / "explanation.json").read_text())
    assert record["statistics"] == {LAYER: {"images": 60, "from": "training split"}}
    assert record["settings"]["attributor"]["layer"] == LAYER and record["versions"]["torch"] == torch.__version__


def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, whole, monkeypatch):
    folder = tmp_path / "out"
    with pytest.raises(OSError, match="the power"):
        explain(folder, Breaking(breaks_at=2), overlays=True)
    first = len(rows_of(folder))
    done = contents(folder)
    assert 0 < first < len(rows_of(whole)) and len(np.load(folder / "maps" / "shard_00000.npy")) == first
    spy = explain(folder, overlays=True)
    assert sum(len(images) for images in spy.images) == len(rows_of(whole)) - first  # no map was made twice
    assert contents(folder) == contents(whole)
    assert contents(folder)["maps/shard_00000.npy"][128:].startswith(done["maps/shard_00000.npy"][128:])

    def nobody_reads(dataset, index):
        raise AssertionError(f"image {index} is read again")

    monkeypatch.setattr(SyntheticCXR, "__getitem__", nobody_reads)
    spy = explain(folder, overlays=True)  # nothing is left to do
    assert not spy.images and contents(folder) == contents(whole)


def test_what_is_lost_or_torn_is_made_again_and_nothing_else(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "out")
    rows = rows_of(folder)
    image = next(row["image"] for row in rows if row["targets"] == "2")
    mine = [row for row in rows if row["image"] == image]
    lines = (folder / "index.csv").read_text().splitlines(keepends=True)
    lost = rows.index(mine[1]) + 1
    (folder / "index.csv").write_text("".join(lines[:lost] + lines[lost + 1 : -3]))
    (folder / "index_rank1.csv").write_text(lines[0] + lines[-3] + lines[-2][: len(lines[-2]) // 2])
    spy = explain(folder, overlays=True)
    again = {row["image"] for row in rows[-2:]} | {image}
    assert sum(len(images) for images in spy.images) == sum(row["image"] in again for row in rows)
    ours, theirs = contents(folder), contents(whole)
    assert ours.keys() == theirs.keys() and ours["index.csv"].count(b"\n") == theirs["index.csv"].count(b"\n")
    assert_same_maps(folder, whole, rtol=1e-3, atol=1e-6)


def test_the_overlays_of_a_folder_share_one_scale(whole):
    scale = json.loads((whole / "explanation.json").read_text())["overlays"]
    limit, maps = scale["full_colour_from"], [read_saliency(whole, row).numpy() for row in rows_of(whole)]
    marked = [one[(one > 0) & (one >= 0.1 * np.quantile(one, 0.995))] for one in maps]
    exact = max(np.quantile(np.concatenate(marked), 0.99), 0.2)
    assert exact * 0.999 <= limit <= 1.1 * exact and scale["unit"] == "bits per pixel"
    for row, values in zip(rows_of(whole), maps, strict=True):
        grey = np.asarray(Image.open(whole / "overlay_xrays" / f"{row['image']}.png")) / 255
        strength = np.clip(values / limit, 0, 1)
        opacity = 0.8 * strength[..., None]
        expected = 255 * (grey[..., None] * (1 - opacity) + colormaps["inferno"](strength)[..., :3] * opacity)
        drawn = np.asarray(Image.open(whole / "overlays" / f"{row['image']}__{row['target']}.png"))
        np.testing.assert_allclose(drawn, expected, atol=1)


def test_more_maps_that_widen_the_scale_redraw_the_overlays_before(tmp_path):
    folder, once = tmp_path / "out", tmp_path / "once"
    explain(folder, overlays=True, limit=2)
    before = contents(folder)
    explain(folder, overlays=True, limit=6)
    explain(once, overlays=True, limit=6)
    ours, theirs = contents(folder), contents(once)
    scales = [json.loads(one["explanation.json"])["overlays"]["full_colour_from"] for one in (before, ours, theirs)]
    assert scales[0] != scales[1] == scales[2]
    assert {name: ours[name] for name in theirs if "overlays/" in name} == {
        name: theirs[name] for name in theirs if "overlays/" in name
    }
    first = next(name for name in before if name.startswith("overlays/"))
    assert before[first] != ours[first]


def test_overlays_asked_for_later_are_drawn_from_the_maps(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "out")
    shutil.rmtree(folder / "overlays")
    spy = explain(folder, overlays=True)
    assert not spy.images and contents(folder) == contents(whole)


def test_a_full_disk_leaves_whole_maps_with_their_rows_and_nothing_else(tmp_path, whole, monkeypatch):
    folder, written, append = tmp_path / "out", [], map_store._Shard.append

    def full(shard, values):
        written.append(values)
        if len(written) > 7:
            raise OSError(28, "No space left on device")
        return append(shard, values)

    monkeypatch.setattr(map_store._Shard, "append", full)
    with pytest.raises(MisconfigurationException, match="cannot write to .*No space left.* to go on"):
        explain(folder, overlays=True)
    monkeypatch.undo()
    assert 0 < len(rows_of(folder)) <= 7 and all(read_saliency(folder, row).any() for row in rows_of(folder))
    assert not list(folder.rglob("*.unfinished"))
    (folder / "maps" / ".0123456789abcdef.unfinished").write_bytes(b"half")  # of a process that was killed
    explain(folder, overlays=True)
    assert contents(folder).keys() == contents(whole).keys()
    assert_same_maps(folder, whole, rtol=1e-3, atol=1e-6)


def test_files_of_single_maps_are_there_on_request_also_later(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "out")
    spy = explain(folder, overlays=True, npy=True)
    assert not spy.images  # nothing is explained again
    for row in rows_of(folder):
        saliency = np.load(folder / "npy" / f"{row['image']}__{row['target']}.npy")
        assert saliency.dtype == np.float32 and np.array_equal(saliency, read_saliency(whole, row))
    shutil.rmtree(folder / "npy")
    assert contents(folder) == contents(whole)


def other_weights():
    task = Predicting(PATHOLOGIES)
    torch.nn.init.ones_(task.model[-1].bias)
    return task


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"task": other_weights}, "checkpoint.weights .* there"),
        ({"attributor": lambda: Breaking(beta=11.0)}, "attributor.beta 10.0 there, 11.0 now.* Nothing"),
        ({"data": lambda: phantom(size=48)}, "data.size 32 there, 48 now"),
        ({"split": lambda: "val"}, "data.split"),
        ({"targets": lambda: "top"}, 'targets "positive" there, "top" now'),
    ],
)
def test_a_folder_of_another_explanation_is_left_as_it_is(tmp_path, whole, change, word):
    folder = shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(MisconfigurationException, match=rf"another explanation \({word}.*output_dir"):
        explain(folder, overlays=True, **{name: make() for name, make in change.items()})
    assert contents(folder) == contents(whole)


def test_maps_of_an_earlier_version_are_not_mixed_with_those_of_this_one(tmp_path, whole):
    """Version 0.1 took ten steps of another optimiser at the same beta, and its records name no version."""
    folder = shutil.copytree(whole, tmp_path / "out")
    record = json.loads((folder / "explanation.json").read_text())
    del record["settings"]["version"]
    record["settings"]["attributor"] |= {"steps": 10, "lr": 1.0}
    (folder / "explanation.json").write_text(json.dumps(record))
    before = contents(folder)
    with pytest.raises(MisconfigurationException, match="attributor.lr 1.0 there, .*version null there, .* now"):
        explain(folder, overlays=True)
    assert contents(folder) == before


def test_a_folder_of_maps_nobody_knows_of_is_left_as_it_is(tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "out")
    (folder / "explanation.json").unlink()
    with pytest.raises(MisconfigurationException, match="holds maps but no explanation.json"):
        explain(folder)
    assert len(contents(folder)) == len(contents(whole)) - 1


def test_two_processes_write_what_one_does(tmp_path, whole):
    folder = tmp_path / "out"
    explain(folder, overlays=True, trainer_options={"devices": 2, "strategy": "ddp_spawn"})
    ours, theirs = contents(folder), contents(whole)
    assert ours.keys() - theirs.keys() == {"maps/rank1_00000.npy"} and theirs.keys() < ours.keys()
    assert ours["explanation.json"] == theirs["explanation.json"]
    assert_same_maps(folder, whole, rtol=2e-3, atol=1e-5)


def test_a_score_is_explained_once_per_image(tmp_path):
    attributor = SpyIBA(objective="squared_error")
    data = phantom(target="severity", num_test=6)
    explain(tmp_path / "out", attributor, Predicting(()), data)
    rows = rows_of(tmp_path / "out")
    labels = data.dataset("test").labels
    assert [row["target"] for row in rows] == ["severity"] * 6
    assert [float(row["truth"]) for row in rows] == labels.tolist()
    assert torch.equal(torch.cat(attributor.targets), labels)


def test_a_limit_takes_the_first_images_and_a_longer_one_goes_on(tmp_path):
    folder, ids = tmp_path / "out", phantom(num_test=20).dataset("test").image_ids
    explain(folder, limit=3, targets=["Mass", "Nodule"])
    assert [row["image"] for row in rows_of(folder)] == [name for name in ids[:3] for _ in range(2)]
    spy = explain(folder, limit=5, targets=["Mass", "Nodule"])
    assert len(torch.cat(spy.images)) == 4 and len(rows_of(folder)) == 10
    assert {row["target"] for row in rows_of(folder)} == {"Mass", "Nodule"}


def test_all_splits_together(tmp_path):
    data = phantom(num_train=3, num_val=2, num_test=2)
    explain(tmp_path / "out", GradCAM(layer=LAYER), data=data, split="all", targets="top")
    rows = rows_of(tmp_path / "out")
    assert [row["image"] for row in rows] == [name for part in data.parts().values() for name in part.image_ids]
    assert "sum" in rows[0] and "bits" not in rows[0]  # maps of another unit do not pass for bits


def test_statistics_come_from_the_checkpoint_first(tmp_path):
    task, data = Predicting(PATHOLOGIES), phantom()
    callback = IBACallback(IBA(layer=LAYER, steps=2))
    callback.attributor.fit(task.model, torch.rand(70, 3, 32, 32).split(35))
    saved = [(IBA(layer=LAYER), callback.state_dict())]
    explain(tmp_path / "a", IBA(layer=LAYER, steps=2), task, data, limit=2, saved=saved)
    record = json.loads((tmp_path / "a" / "explanation.json").read_text())
    assert record["statistics"] == {LAYER: {"images": 70, "from": "checkpoint"}}
    with pytest.raises(MisconfigurationException, match="begun with feature statistics"):
        explain(tmp_path / "a", IBA(layer=LAYER, steps=2), task, data, limit=4)


def without_training_images(**options):
    data = phantom(**options)
    parts = data.parts
    data.parts = lambda: {"test": parts()["test"]}
    return data


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"data": without_training_images}, MisconfigurationException, f"no feature statistics of {LAYER}.*GradCAM"),
        ({"attributor": lambda: IBA(layer="21")}, LayerError, "layer='21' is not a module"),
        ({"attributor": lambda: GradCAM(layer="5")}, MisconfigurationException, "not a feature map"),
        ({"attributor": lambda: MultiLayerIBA(layers=["0", "x"])}, LayerError, "layer='x'"),
        (
            {"attributor": lambda: IBA(layer=LAYER, objective="deviation")},
            MisconfigurationException,
            "predicts classes",
        ),
        ({"targets": lambda: ["Mass", "Gout"]}, MisconfigurationException, "unknown: 'Gout'; give .*Atelectasis, "),
        ({"targets": lambda: "postive"}, MisconfigurationException, "unknown: 'postive'; give positive, top, or"),
        ({"targets": lambda: []}, MisconfigurationException, "empty"),
        ({"split": lambda: "tests"}, ValueError, "split is 'tests': SyntheticDataModule has train, val, test"),
        ({"limit": lambda: 0}, MisconfigurationException, "limit=0"),
        ({"threshold": lambda: 50.0}, MisconfigurationException, "threshold=50.0 must lie between 0 and 1"),
        ({"network": lambda: "net"}, MisconfigurationException, "network='net' is not a module"),
        ({"task": Mute}, MisconfigurationException, "predict_step of Mute does not return image_id and prediction"),
        ({"task": lambda: Wide(PATHOLOGIES)}, MisconfigurationException, r"Wide gives shape .1, 9. for one image"),
    ],
)
def test_what_cannot_work_is_told_at_once(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        explain(tmp_path / "out", **{name: make() for name, make in options.items()})
    assert not list(tmp_path.rglob("*.npy"))


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MisconfigurationException, match="cannot be written to.*give another folder"):
        explain(tmp_path / "file" / "out")


def test_other_data_modules_give_what_they_predict(tmp_path):
    class Data(TinyData):
        def predict_dataloader(self):
            return self.test_dataloader()

    explain(tmp_path / "out", GradCAM(layer=LAYER), Predicting(), Data())
    assert [row["image"] for row in rows_of(tmp_path / "out")] == Data().test.ids
    with pytest.raises(
        MisconfigurationException, match="Data has no choose_predicted, .* split or limit .*data/contract.py"
    ):
        explain(tmp_path / "other", GradCAM(layer=LAYER), Predicting(), Data(), limit=2)


def test_the_model_is_left_as_it_was_and_others_take_no_part(tmp_path):
    task, data = Predicting(PATHOLOGIES), phantom(num_test=4)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    others = [IBACallback(IBA(layer="nowhere")), ModelCheckpoint(tmp_path / "ckpt")]
    logger = CSVLogger(tmp_path / "logs")
    trainer = tiny_trainer(tmp_path / "root", *others, logger=logger, enable_checkpointing=True)
    kept = list(trainer.callbacks)
    with undisturbed(trainer, MapWriter(GradCAM(layer=LAYER), tmp_path / "out")):
        trainer.predict(task, data, return_predictions=False)
    assert trainer.callbacks == kept and trainer.loggers == [logger]
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in task.parameters())


def test_targets_of_a_batch():
    predictions = torch.tensor([[0.9, 0.2, 0.6], [0.1, 0.3, 0.2]])
    labels = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])

    def pairs(targets, labels=None, threshold=0.5):
        rows, classes = ChosenTargets(targets, DETECTORS, threshold).of_batch(predictions, labels)
        return list(zip(rows.tolist(), classes.tolist(), strict=True))

    assert pairs("positive", labels) == [(0, 1), (0, 2)]
    assert pairs("positive") == [(0, 0), (0, 2), (1, 1)]  # nothing reaches 0.5 in the second image: its likeliest
    assert pairs("positive", threshold=0.2) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
    assert pairs("top", labels) == [(0, 0), (1, 1)]
    assert pairs(["severity_3", "severity_0_1"], labels) == [(0, 2), (0, 0), (1, 2), (1, 0)]
    assert pairs("severity_2") == [(0, 1), (1, 1)]


def test_one_name_twice_is_explained_once_with_a_warning(tmp_path):
    class Data(TinyData):
        def predict_dataloader(self):
            self.test.ids[5] = self.test.ids[1]
            return self.test_dataloader()

    with pytest.warns(UserWarning, match="1 images with duplicate ids are skipped"):
        explain(tmp_path / "out", GradCAM(layer=LAYER), Predicting(), Data())
    assert len(rows_of(tmp_path / "out")) == 5


def test_an_index_torn_at_any_byte_leaves_whole_images_only(tmp_path):
    files = MapFolder(tmp_path, "bits")
    small = np.zeros((2, 2), np.float32)

    def entry(image, target):
        rest = {"prediction": "0.5", "truth": "1", "bits": "3", "empty": "1", "convergence": "", "pixels": "2x2"}
        return {"image": image, "target": target, **rest, "width": "1", "height": "1", "targets": "12"}

    files.write([Drawn(entry(image, f"ü{i}"), small) for image in "ab" for i in range(12)])
    content = (tmp_path / "index.csv").read_bytes()
    found = []
    for end in range(len(content) + 1):
        (tmp_path / "index.csv").write_bytes(content[:end])
        whole = files.consolidate()
        assert all(len(rows) == 12 for rows in whole.values())
        found.append(len(whole))
    assert found == sorted(found) and found[-1] == 2


def test_maps_are_read_as_the_page_says(whole, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "how_to" / "explain_folder.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(whole.parent)
    names = {}
    exec(compile(script.replace("OUT", "out"), "explain_folder.md", "exec"), names)
    assert names["saliency"].shape == (32, 32) and names["row"] == rows_of(whole)[-1]
    assert float(names["saliency"].sum()) == pytest.approx(float(names["row"]["bits"]), rel=1e-4)


def test_images_whose_ids_are_numbers_are_not_explained_twice(tmp_path):
    class Data(TinyData):
        def predict_dataloader(self):
            self.test.ids = list(range(len(self.test)))
            return self.test_dataloader()

    explain(tmp_path / "out", GradCAM(layer=LAYER), Predicting(), Data())
    first = contents(tmp_path / "out")
    explain(tmp_path / "out", GradCAM(layer=LAYER), Predicting(), Data())
    assert contents(tmp_path / "out") == first and len(rows_of(tmp_path / "out")) == len(Data().test)
