"""``python -m lightning_chex explain``, from the command line to the files."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import CONFIGS, TINY, written
from fakes import write_cohen, write_nih
from PIL import Image
from test_files import HOLDER, started
from tiny import tiny_trainer

from lightning_chex.attribution import IBA
from lightning_chex.cli.main import main
from lightning_chex.data import PATHOLOGIES, NIHDataModule
from lightning_chex.explanations import IBACallback
from lightning_chex.maps import MapFolder, read_saliency
from lightning_chex.tasks import ClassificationTask, RegressionTask

pytestmark = pytest.mark.filterwarnings("ignore")

LAYER = "layer2"  # of timm's smallest network
SMALL = [*TINY, "--model.backbone=test_resnet"]
ALL_EIGHT = [*PATHOLOGIES]


def attributor(**options):
    return {"class_path": "IBA", "init_args": {"layer": LAYER, "steps": 2, **options}}


def configuration(path, base, **options):
    """One of the project's configurations, explained at a layer of the small network."""
    config = yaml.safe_load((CONFIGS / f"{base}.yaml").read_text())
    config["trainer"]["callbacks"][0]["init_args"]["attributor"] = attributor(**options)
    path.write_text(yaml.safe_dump(config))
    return path


def checkpoint(path, task, **options):
    """Of an untrained model whose callback has seen 60 images."""
    callback = IBACallback(IBA(layer=LAYER, **options))
    callback.attributor.fit(task.model, torch.rand(60, 3, 64, 64).split(30))
    trainer = tiny_trainer(path.parent, callback)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data, configurations and checkpoints of a classification and of a regression."""
    folder = tmp_path_factory.mktemp("made")
    write_nih(folder / "nih")
    write_cohen(folder / "cohen")
    configuration(folder / "nih.yaml", "nih_classification")
    configuration(folder / "cohen.yaml", "cohen_regression", objective="deviation")
    torch.manual_seed(0)
    checkpoint(folder / "nih.ckpt", ClassificationTask(ALL_EIGHT, backbone="test_resnet"))
    checkpoint(folder / "cohen.ckpt", RegressionTask(backbone="test_resnet"), objective="deviation")
    for i, (name, shape) in enumerate({"a": (40, 30), "ward/b": (64, 64), "ward/c": (30, 50)}.items()):
        path = folder / "plain" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return folder


def nih(made, *options, root=None):
    return [
        "explain", "--config", str(made / "nih.yaml"), "--ckpt_path", str(made / "nih.ckpt"),
        "--data.root", str(root or made / "nih"), *SMALL, *options,
    ]  # fmt: skip


def rows_of(folder):
    with (Path(folder) / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def record_of(folder):
    return json.loads((Path(folder) / "explanation.json").read_text())


def test_the_test_split_of_a_data_set(place, made, capsys):
    main(nih(made, "--output_dir", "out", "--overlays", "true"))
    assert {path.split("/")[0] for path in written(place / "work")} == {"out"} and not written(place / "home")
    rows = rows_of("out")
    data = NIHDataModule(str(made / "nih"), size=64)
    data.setup("test")
    test = data.dataset("test")
    assert [(row["image"], row["target"]) for row in rows] == [
        (test.image_ids[i], PATHOLOGIES[k]) for i, k in test.labels.nonzero().tolist()
    ]
    names = {f"{row['image']}__{row['target']}" for row in rows}
    assert [path.name for path in Path("out/maps").iterdir()] == ["shard_00000.npy"]
    assert {path.stem for path in Path("out/overlays").iterdir()} == names
    assert {(row["width"], row["height"]) for row in rows} == {("64", "64")}
    assert record_of("out")["statistics"] == {LAYER: {"images": 60, "from": "checkpoint"}}
    said = capsys.readouterr().out
    assert f"{len(rows)} maps for 8 images, listed in out/index.csv" in said

    # the map, made by hand
    task = ClassificationTask.load_from_checkpoint(made / "nih.ckpt").eval()
    state = torch.load(made / "nih.ckpt", weights_only=True)["callbacks"]["IBACallback{'name': 'iba'}"]
    iba = IBA(layer=LAYER, steps=2)
    iba.load_state_dict(state)
    index = test.image_ids.index(rows[3]["image"])
    by_hand = iba.attribute(
        task.model, test[index]["image"][None], torch.tensor([PATHOLOGIES.index(rows[3]["target"])])
    )
    np.testing.assert_allclose(read_saliency(Path("out"), rows[3]), by_hand[0], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("config", ["nih.yaml", None])
def test_images_alone_are_explained_and_predicted(place, made, config):
    given = ["--config", str(made / config)] if config else ["--trainer.logger=false", "--trainer.callbacks=null"]
    options = [
        *given, "--data", "ImageFolderDataModule", "--data.root", str(made / "plain"), *SMALL,
        "--ckpt_path", str(made / "nih.ckpt"),
    ]  # fmt: skip
    method = [] if config else ["--attributor", "GradCAM", "--attributor.layer", LAYER]
    main(["explain", *options, *method, "--targets", "[Mass]", "--output_dir", "out"])
    rows = rows_of("out")
    assert [(row["image"], row["target"], row["truth"]) for row in rows] == [
        ("a", "Mass", ""), ("ward/b", "Mass", ""), ("ward/c", "Mass", ""),
    ]  # fmt: skip
    assert [(row["width"], row["height"]) for row in rows] == [("30", "40"), ("64", "64"), ("50", "30")]
    if config:
        main(["predict", *options, "--trainer.logger=false", "--trainer.default_root_dir", "root"])
        header, *predicted = csv.reader(Path("root/predictions.csv").read_text().splitlines())
        assert header == ["image_id", *PATHOLOGIES] and [line[0] for line in predicted] == ["a", "ward/b", "ward/c"]
        assert [float(line[5]) for line in predicted] == pytest.approx([float(row["prediction"]) for row in rows])


def test_a_score_of_images_alone(place, made):
    main([
        "explain", "--config", str(made / "cohen.yaml"), "--data", "ImageFolderDataModule", *SMALL,
        "--data.root", str(made / "plain"), "--ckpt_path", str(made / "cohen.ckpt"), "--limit", "2",
    ])  # fmt: skip
    rows = rows_of("explanations")
    assert [(row["image"], row["target"], row["truth"]) for row in rows] == [
        ("a", "severity", ""), ("ward/b", "severity", ""),
    ]  # fmt: skip


def decoded(counts, height, width):
    """Read COCO's run lengths back, plainly."""
    numbers, value, shift = [], 0, 0
    for character in counts:
        bits = ord(character) - 48
        value, shift = value | (bits & 31) << shift, shift + 5
        if bits < 32:
            numbers.append(value - (1 << shift) if bits & 16 else value)
            value, shift = 0, 0
    for i in range(3, len(numbers)):
        numbers[i] += numbers[i - 2]
    flat = np.repeat(np.arange(len(numbers)) % 2 == 1, numbers)
    return flat.reshape(width, height).T


def test_masks_for_chexlocalize_lie_in_the_pixels_of_the_files(place, made):
    options = ["--data", "ImageFolderDataModule", "--targets", "[Mass,Effusion]", "--rle_rule", "top_fraction"]
    main(nih(made, *options, "--rle", "masks/all.json", "--rle_fraction", "0.1", root=made / "plain"))
    masks = json.loads(Path("masks/all.json").read_text())
    assert masks.keys() == {"a", "ward_b", "ward_c"}
    for row in rows_of("explanations"):
        tasks = masks[row["image"].replace("/", "_")]
        assert len(tasks) == 11 and {"Support Devices", "Pleural Effusion", "Lung Lesion", "Mass"} <= tasks.keys()
        task = tasks[{"Effusion": "Pleural Effusion"}.get(row["target"], row["target"])]
        height, width = int(row["height"]), int(row["width"])
        assert all(own["size"] == [height, width] for own in tasks.values())
        mask = decoded(task["counts"], height, width)
        assert mask.shape == (height, width) and mask.mean() == pytest.approx(0.1, abs=0.02)
        assert not decoded(tasks["Edema"]["counts"], height, width).any()
        # the strongest place of the map, carried over by hand
        saliency = read_saliency(Path("explanations"), row).numpy()
        scale, inner = (
            max(height, width) / 64,
            (round(height * 64 / max(height, width)), round(width * 64 / max(height, width))),
        )
        top, left = (64 - inner[0]) // 2, (64 - inner[1]) // 2
        window = saliency[top : top + inner[0], left : left + inner[1]]
        y, x = np.unravel_index(window.argmax(), window.shape)
        assert mask[min(height - 1, int((y + 0.5) * scale)), min(width - 1, int((x + 0.5) * scale))]


def test_a_method_from_a_file_takes_its_statistics_from_the_training_split(place, made):
    Path("method.yaml").write_text(
        yaml.safe_dump(
            {"class_path": "lightning_chex.attribution.InverseIBA", "init_args": {"layer": "layer3", "steps": 1}}
        )
    )
    main(nih(made, "--attributor", "method.yaml", "--split", "tuning", "--limit", "2"))
    assert record_of("explanations")["statistics"] == {"layer3": {"images": 20, "from": "training split"}}
    assert record_of("explanations")["settings"]["attributor"]["class"] == "InverseIBA"


def the_error(capsys, arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "Traceback" not in said
    return lines[0]


def test_what_cannot_work_is_one_line(place, made, capsys):
    plain = ["--data", "ImageFolderDataModule"]
    cases = [
        (nih(made, "--targets", "[Mass,Gout]"), "unknown: 'Gout'; give positive, top, or some of Atelectasis"),
        (
            nih(made, "--ckpt_path", "nowhere.ckpt"),
            "ckpt_path='nowhere.ckpt' is no checkpoint to use: it does not exist",
        ),
        (nih(made, "--ckpt_path=null"), "no checkpoint: give the trained model"),
        (
            nih(made, *plain, "--ckpt_path=null", root=made / "plain"),
            "no checkpoint: give the trained model",
        ),
        (nih(made, *plain, root=made / "nih.yaml"), "root"),
        (nih(made, "--attributor", "GradCAM"), "layer='features.norm5' is not a module of ResNet"),
        (
            nih(made, *plain, "--attributor", "IBA", "--attributor.layer", "layer3", root=made / "plain"),
            "no feature statistics of layer3",
        ),
        (
            [
                "explain",
                "--config",
                str(made / "cohen.yaml"),
                *plain,
                *SMALL,
                "--data.root",
                str(made / "plain"),
                "--ckpt_path",
                str(made / "cohen.ckpt"),
                "--attributor",
                "IBA",
                "--attributor.layer",
                LAYER,
                "--attributor.objective",
                "squared_error",
            ],
            "squared_error explains the true score, and these images have no labels: give the attributor objective",
        ),  # fmt: skip
        (["fit", *nih(made, *plain, root=made / "plain")[1:]], "fit needs labels, and ImageFolderDataModule has none"),
        (nih(made, "--split", "tests"), "split is 'tests': NIHDataModule has train, val, test, tuning"),
        (nih(made, "--output_dir", str(made / "nih.yaml")), "cannot be written to"),
    ]
    for arguments, words in cases:
        error = the_error(capsys, arguments)
        assert words in error, error
    assert not list(place.rglob("*.npy"))


def test_another_checkpoint_does_not_go_on_in_the_same_folder(place, made, capsys):
    main(nih(made, "--limit", "1"))
    other = checkpoint(place / "other.ckpt", ClassificationTask(ALL_EIGHT, backbone="test_resnet"))
    before = written(place / "work")
    error = the_error(capsys, nih(made, "--ckpt_path", str(other)))
    assert (
        "explanations holds another explanation (checkpoint.sha256 " in error and "give another --output_dir" in error
    )
    assert written(place / "work") == before


def test_an_unreadable_image_is_skipped_and_listed(place, made):
    plain = place / "copy"
    for name in ("a.png", "b.png", "c.png"):
        (plain / name).parent.mkdir(exist_ok=True)
        (plain / name).write_bytes((made / "plain" / "a.png").read_bytes() if name != "b.png" else b"no image")
    main(nih(made, "--data", "ImageFolderDataModule", "--data.on_unreadable", "skip", "--targets", "top", root=plain))
    assert [row["image"] for row in rows_of("explanations")] == ["a", "c"]
    assert Path("explanations/unreadable_images.txt").read_text() == "b\n"


def test_images_of_the_same_names_in_another_folder_are_others(place, made, capsys):
    for name in ("one", "two"):
        (place / name).mkdir()
        Image.fromarray(np.full((20, 20), 3 + len(name), dtype=np.uint8)).save(place / name / "0001.png")
    plain = ["--data", "ImageFolderDataModule"]
    main(nih(made, *plain, root=place / "one"))
    before = written(place / "work")
    assert "data.root" in the_error(capsys, nih(made, *plain, root=place / "two"))
    assert written(place / "work") == before
    assert str(place) not in (place / "work" / "explanations" / "explanation.json").read_text()


def test_the_folder_of_the_images_can_take_the_maps(place, made):
    (place / "own").mkdir()
    for i in range(3):
        Image.fromarray(np.full((20, 20), i, dtype=np.uint8)).save(place / "own" / f"{i}.png")
    options = ["--data", "ImageFolderDataModule", "--overlays=true", "--output_dir", str(place / "own")]
    main(nih(made, *options, "--limit=1", root=place / "own"))
    main(nih(made, *options, root=place / "own"))
    assert {row["image"] for row in rows_of(place / "own")} == {"0", "1", "2"}


def test_a_file_that_is_no_lightning_checkpoint_or_a_broken_model_is_one_line(place, made, capsys):
    whole = torch.load(made / "nih.ckpt", weights_only=True)
    torch.save({"weights": whole["state_dict"]}, place / "other.ckpt")
    assert "no state_dict" in the_error(capsys, nih(made, "--ckpt_path", str(place / "other.ckpt")))
    broken = {name: value * torch.nan if "fc" in name else value for name, value in whole["state_dict"].items()}
    torch.save(whole | {"state_dict": broken}, place / "nan.ckpt")
    assert "hold NaN (model.fc.weight for one), so its training had diverged" in the_error(
        capsys, nih(made, "--ckpt_path", str(place / "nan.ckpt"))
    )
    assert "is a folder" in the_error(capsys, nih(made, "--rle", str(place)))


def test_a_folder_that_is_removed_in_mid_run_is_an_error(made, place, capsys, monkeypatch):
    write = MapFolder.write

    def write_and_remove(folder, maps):
        write(folder, maps)
        shutil.rmtree(folder.folder, ignore_errors=True)

    monkeypatch.setattr(MapFolder, "write", write_and_remove)
    with pytest.raises(SystemExit) as stop:
        main(nih(made, "--output_dir=out"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and "out" in line and not Path("out").exists()


def test_a_folder_in_which_another_process_works_is_refused(made, place, capsys):
    process = started(HOLDER, Path("out"))
    try:
        with pytest.raises(SystemExit) as stop:
            main(nih(made, "--output_dir=out"))
    finally:
        process.kill()
        process.wait()
    assert stop.value.code == 2 and f"another process ({process.pid}) is at work" in capsys.readouterr().err
    assert written(place / "work") == {"out/lock"}
