"""A data set of one's own that keeps to the contract and offers nothing else goes through every command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import TINY
from own_data import SquaresData

from lightning_chex.cli.main import main
from lightning_chex.data import DataError, collate

pytestmark = pytest.mark.filterwarnings("ignore")


def configuration(data: str, task: str, objective: str | None = None) -> str:
    """Write ``own.yaml``: the smallest network, a callback at its second stage."""
    attributor = {"layer": "layer2", "steps": 2} | ({} if objective is None else {"objective": objective})
    iba = {"class_path": "lightning_chex.attribution.IBA", "init_args": attributor}
    callback = {
        "class_path": "lightning_chex.explanations.IBACallback",
        "init_args": {"attributor": iba, "num_images": 4},
    }
    settings = {
        "model": {"class_path": f"lightning_chex.tasks.{task}", "init_args": {"backbone": "test_resnet"}},
        "data": {"class_path": data},
        "trainer": {"callbacks": [callback], "logger": False},
    }
    Path("own.yaml").write_text(yaml.safe_dump(settings))
    return "own.yaml"


QUICK = ["--settings.perturbation_images=2", "--settings.randomization_images=2"]


def run(capsys, *arguments: str) -> str:
    capsys.readouterr()
    main([*arguments])
    return capsys.readouterr().out


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def fitted(capsys, config: str) -> list[str]:
    """Train, see that the callback has drawn its sheet, and return the options of the other commands."""
    run(capsys, "fit", "--config", config, *TINY, "--trainer.default_root_dir=a")
    assert Path("a/explanations/epoch_000.png").is_file()
    assert len(list(Path("a/explanations/epoch_000").glob("*.png"))) >= 4
    (checkpoint,) = Path("a").rglob("last.ckpt")
    return ["--config", config, *TINY, f"--ckpt_path={checkpoint}"]


def inspected(capsys, config: str) -> str:
    said = run(capsys, "inspect", "--config", config, "--data.size=64")
    assert list(Path("inspect").glob("*.png"))
    return said


def explained(capsys, trained: list[str]) -> list[dict[str, str]]:
    """Explain five images, then all; the first five are not explained again."""
    command = ["explain", *trained, "--output_dir=e", "--overlays=true"]
    run(capsys, *command, "--limit=5")
    first = table("e/index.csv")
    (shard,) = Path("e/maps").iterdir()
    maps = shard.read_bytes()
    run(capsys, *command)
    rows = table("e/index.csv")
    assert first and [row for row in rows if row in first] == first and len(rows) > len(first)
    assert shard.read_bytes()[128:].startswith(maps[128:]) and len(np.load(shard)) == len(rows)
    return rows


def evaluated(capsys, trained: list[str], method: str, *options: str) -> dict:
    run(capsys, "evaluate", *trained, "--output_dir=v", *QUICK, f"--methods=[{method},Gradient]", *options)
    assert Path("v/report.html").is_file()
    return json.loads(Path("v/results.json").read_text())


def groups(results: dict) -> set[str]:
    return {measure["group"] for measure in results["measures"].values()}


@pytest.mark.parametrize(
    ("data", "task", "objective", "targets", "method"),
    [
        ("SquaresData", "ClassificationTask", None, ["left", "right"], "IBA"),
        ("SeverityData", "RegressionTask", "deviation", ["severity"], "RegressionIBA_DV"),
    ],
)
def test_labels_and_the_four_keys_are_enough_for_every_command(place, capsys, data, task, objective, targets, method):
    config = configuration(f"own_data.{data}", task, objective)
    trained = fitted(capsys, config)
    said = inspected(capsys, config)
    (patients,) = [line.split() for line in said.splitlines() if line.startswith("patients")]
    assert f"{data}: 36 images\n" in said and patients == ["patients", *["unknown"] * 4]
    for command in ("validate", "test"):
        run(capsys, command, *trained, f"--trainer.default_root_dir={command}")
        assert Path(command, "explanations", f"{command}.png").is_file()
    run(capsys, "predict", *trained, "--trainer.default_root_dir=p")
    rows = table("p/predictions.csv")
    assert [*rows[0]] == ["image_id", *targets] and [row["image_id"] for row in rows] == [
        f"test-{i}" for i in range(12)
    ]
    index = explained(capsys, trained)
    assert {row["target"] for row in index} == set(targets) and not any(row["width"] for row in index)
    results = evaluated(capsys, trained, method)
    # nothing is marked, so nothing is localized; what the output rests on is measured all the same
    assert groups(results) == {"perturbation", "randomization", "further"} and results["regions"] is None
    assert results["left_out"] == {"PriorMap": "no tuning image has a region"}


@pytest.mark.parametrize(
    ("data", "options", "wanted"),
    [
        ("BoxedData", [], "boxes"),
        ("MaskedData", ["--settings.regions=masks"], "masks"),
    ],
)
def test_samples_may_have_some_of_the_other_keys_and_no_more(place, capsys, data, options, wanted):
    config = configuration(f"own_data.{data}", "ClassificationTask")
    trained = fitted(capsys, config)
    inspected(capsys, config)
    assert explained(capsys, trained)
    results = evaluated(capsys, trained, "IBA", *options)
    assert results["regions"] == wanted and groups(results) > {"localization"}


def test_zone_scores_may_come_without_lungs(place, capsys):
    config = configuration("own_data.ZonedData", "RegressionTask", "deviation")
    trained = fitted(capsys, config)
    inspected(capsys, config)
    assert "localization" not in groups(evaluated(capsys, trained, "RegressionIBA_DV"))


def test_a_data_module_of_another_kind_goes_through_every_command_it_can(place, capsys):
    trained = fitted(capsys, configuration("own_data.OfferingData", "ClassificationTask"))
    for command in ("validate", "test"):
        run(capsys, command, *trained, f"--trainer.default_root_dir={command}")
        assert Path(command, "explanations", f"{command}.png").is_file()
    run(capsys, "predict", *trained, "--trainer.default_root_dir=p")
    assert len(table("p/predictions.csv")) == 12
    run(capsys, "explain", *trained, "--output_dir=e")
    assert {row["image"] for row in table("e/index.csv")} == {f"test-{i}" for i in range(12) if i % 3}
    assert groups(evaluated(capsys, trained, "IBA")) == {"perturbation", "randomization", "further"}


def test_unreadable_images_of_a_data_set_without_names_are_told_by_number():
    data = SquaresData(size=64, on_unreadable="skip")
    images = data.dataset("val")
    images.sample = broken_at_7  # type: ignore[method-assign]
    shown = data.readable(images, "val split")
    with pytest.warns(UserWarning, match="unreadable image 1 of the val split"):
        assert [i for i in range(len(shown)) if shown[i] is None] == [7]
    with pytest.warns(UserWarning, match="number 7 of the val split"):
        data.teardown("fit")
    assert data.unreadable_images == ["number 7 of the val split"]


def broken_at_7(i: int, pixels: np.ndarray) -> dict:
    if i == 7:
        raise DataError("torn")
    return {"image": torch.zeros(3, 64, 64)}


def test_samples_of_one_batch_must_have_the_same_keys():
    one = {"image": torch.zeros(3, 8, 8), "label": torch.zeros(2), "image_id": "a", "patient_id": "p"}
    with pytest.raises(DataError, match="'boxes'.*image 'a' lacks"):
        collate([one | {"image_id": "b", "boxes": torch.zeros(0, 4)}, one])
    with pytest.raises(DataError, match="'boxes'.*image 'a' lacks"):
        collate([one, one | {"image_id": "b", "boxes": torch.zeros(0, 4)}])
