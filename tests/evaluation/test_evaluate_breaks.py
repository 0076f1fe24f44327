"""``evaluate`` on data and folders that are not as one would like them."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from fakes import write_nih
from fakes_brixia import write_brixia
from small_evaluations import SETTINGS
from tiny import TinyData, TinyTask

from lightning_chex.cli.main import main
from lightning_chex.cli.trainer import ChexTrainer
from lightning_chex.evaluation import Assembly, CaseSummaries, Evaluated, EvaluationSettings, ExplainedCase, Records
from lightning_chex.maps import read_entries

pytestmark = pytest.mark.filterwarnings("ignore")


def on_other_data(model, folder: Path, module: str, root: Path, **data) -> str:
    """The configuration of a trained network with another data set of the same classes or scores."""
    config = yaml.safe_load(Path(model.config).read_text())
    config["data"] = {
        "class_path": module, "init_args": {"root": str(root), "size": 64, "batch_size": 4, "augment": False, **data}
    }  # fmt: skip
    path = folder / f"{module}.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def evaluate(model, config: str, output: Path, *options: str, settings=SETTINGS) -> dict:
    main(
        ["evaluate", "--config", config, "--ckpt_path", model.checkpoint, f"--output_dir={output}", *settings, *options]
    )
    return json.loads((output / "results.json").read_text())


def refusal(capsys, *arguments) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        evaluate(*arguments)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def test_scores_without_lungs_are_judged_by_perturbation_alone(regressor, tmp_path):
    config = on_other_data(regressor, tmp_path, "BrixIADataModule", write_brixia(tmp_path / "brixia"))
    results = evaluate(regressor, config, tmp_path / "out", "--methods=[Gradient]")
    assert results["regions"] is None and results["methods"]["Gradient"]["insertion_auc"]["n"] == 2
    assert results["protocol"]["data"]["lungs_outlined_by"] is None
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_other_boxes_are_another_evaluation(classifier, tmp_path, capsys):
    root = write_nih(tmp_path / "nih")
    config = on_other_data(classifier, tmp_path, "NIHDataModule", root)
    evaluate(classifier, config, tmp_path / "out", "--methods=[Gradient]")
    reported = min(row["image"] for row in read_entries(tmp_path / "out" / "maps" / "Gradient" / "index.csv"))
    table = root / "BBox_List_2017.csv"
    lines = table.read_text().splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith(reported)]
    table.write_text("\n".join([*lines[:place], lines[place].rsplit(",", 1)[0] + ",77.0", *lines[place + 1 :]]) + "\n")
    assert "other data" in refusal(capsys, classifier, config, tmp_path / "out", "--methods=[Gradient]")


def test_maps_and_figures_of_an_earlier_version_or_beta_are_not_mixed_with_new_ones(classifier, tmp_path, capsys):
    arguments = (classifier, classifier.config, tmp_path, "--methods=[IBA]", "--limit=2")
    evaluate(*arguments)
    record = tmp_path / "evaluation.json"
    mine = json.loads(record.read_text())
    for change, words in (
        ({"version": "0.1.0"}, "other version"),
        ({"methods": {"IBA": mine["methods"]["IBA"] | {"beta": 80.0}}}, "a method IBA with other settings"),
    ):
        record.write_text(json.dumps(mine | change))
        maps = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*.npy")}
        assert words in refusal(capsys, *arguments)
        assert maps and maps == {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*.npy")}
    record.write_text(json.dumps(mine))
    evaluate(*arguments)  # and with its own settings it goes on


def test_methods_are_compared_on_the_same_images(classifier, tmp_path):
    few = ("--settings.perturbation_images=2", "--settings.randomization_images=1")
    many = ("--settings.perturbation_images=5", "--settings.randomization_images=4")
    evaluate(classifier, classifier.config, tmp_path, "--methods=[Gradient]", *many)
    results = evaluate(classifier, classifier.config, tmp_path, "--methods=[Gradient,IntegratedGradients]", *few)
    for measure in ("insertion_auc", "sensitivity_n", "randomization"):
        counts = {name: own[measure]["n"] for name, own in results["methods"].items() if measure in own}
        assert len(counts) > 1 and len(set(counts.values())) == 1, (measure, counts)
    alone = evaluate(classifier, classifier.config, tmp_path, "--methods=[Gradient]", *many)
    assert alone["protocol"]["data"]["perturbation_images"] == 5  # and nothing was lost


def test_tuned_levels_are_written_as_the_hundredths_they_are(classifier, tmp_path):
    results = evaluate(classifier, classifier.config, tmp_path, "--methods=[Gradient]", "--limit=4")
    levels = [level for own in results["protocol"]["tuned_levels"].values() for level in own.values()]
    assert any(levels) and all(level == round(level, 2) for level in levels)


def test_a_place_that_is_no_folder_of_an_evaluation_is_left_alone(classifier, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert "cannot be written to" in refusal(capsys, classifier, classifier.config, tmp_path / "file")
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(classifier.config, run / "config.yaml")
    assert "holds a config.yaml" in refusal(capsys, classifier, classifier.config, run)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in run.iterdir()] == ["config.yaml"]
    assert (run / "config.yaml").read_bytes() == Path(classifier.config).read_bytes()


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(classifier, tmp_path, capsys, monkeypatch):
    from lightning_chex.evaluation import Records

    written, original = 0, Records.save_maps

    def full(self, *arguments):
        nonlocal written
        written += 1
        if written == 2:
            raise OSError(28, "No space left on device")
        return original(self, *arguments)

    monkeypatch.setattr(Records, "save_maps", full)
    arguments = (classifier, classifier.config, tmp_path / "out", "--methods=[Gradient]", "--limit=12")
    assert "No space left on device" in refusal(capsys, *arguments)
    kept = read_entries(tmp_path / "out" / "maps" / "Gradient" / "index.csv")
    assert kept and evaluate(*arguments)["protocol"]["data"]["images"] <= 12
    assert read_entries(tmp_path / "out" / "maps" / "Gradient" / "index.csv")[: len(kept)] == kept


def test_an_image_that_cannot_be_read_is_left_out_and_named_beside_the_results(classifier, tmp_path):
    root = write_nih(tmp_path / "nih")
    config = on_other_data(classifier, tmp_path, "NIHDataModule", root, on_unreadable="skip")
    whole = evaluate(classifier, config, tmp_path / "whole", "--methods=[Gradient]")
    names = sorted({row["image"] for row in read_entries(tmp_path / "whole" / "maps" / "Gradient" / "index.csv")})
    picture = root / "images_001" / "images" / f"{names[3]}.png"
    content = bytearray(picture.read_bytes())
    start = content.index(b"IDAT") + 8
    content[start : start + 12] = bytes(12)
    picture.write_bytes(content)
    results = evaluate(classifier, config, tmp_path / "out", "--methods=[Gradient]")
    assert results["protocol"]["data"]["images"] == whole["protocol"]["data"]["images"] - 1
    rows = [set((tmp_path / name / "per_image.csv").read_text().splitlines()) for name in ("whole", "out")]
    assert rows[1] < rows[0] and all(row.startswith(names[3]) for row in rows[0] - rows[1])
    assert (tmp_path / "out" / "unreadable_images.txt").read_text().split() == [names[3]]


def test_one_resample_is_no_crash(classifier, tmp_path):
    settings = [option for option in SETTINGS if "resamples" not in option]
    evaluate(
        classifier, classifier.config, tmp_path, "--methods=[Gradient]", "--settings.resamples=1", settings=settings
    )


def test_the_share_that_the_rule_marks_is_written_exactly(classifier, tmp_path):
    results = evaluate(classifier, classifier.config, tmp_path, "--methods=[Gradient]", "--limit=2")
    share = results["protocol"]["top_fraction"]
    assert f"strongest {share:.1%} " in results["protocol"]["threshold_rule"] and share != round(share, 3)


@pytest.mark.parametrize("name", ["...yaml", "a<b.yaml", 'a".yaml'])
def test_a_method_whose_file_name_is_no_folders_is_refused(classifier, tmp_path, capsys, name):
    shutil.copy(classifier.files["Quick"], tmp_path / name)
    methods = f"--methods={json.dumps([str(tmp_path / name)])}"
    assert "file name" in refusal(capsys, classifier, classifier.config, tmp_path / "out", methods)
    assert not (tmp_path / "out").exists()


def test_half_precision_weights_are_refused_before_any_work(classifier, tmp_path, capsys):
    arguments = (classifier, classifier.config, tmp_path / "out", "--trainer.precision=bf16-true")
    assert "bf16-mixed" in refusal(capsys, *arguments)


def evaluate_tiny(folder: Path, data: TinyData, **settings) -> Evaluated:
    trainer = ChexTrainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    few = EvaluationSettings(
        **{
            "perturbation_images": 1, "randomization_images": 0, "sensitivity_sizes": 1, "sensitivity_masks": 3,
            "step": 64, "blur_kernel": 3, "resamples": 10, **settings,
        }
    )  # fmt: skip
    return trainer.evaluate(TinyTask(), data, output_dir=str(folder / "out"), methods=["Gradient"], settings=few)


def test_an_image_with_the_name_of_another_one_is_left_out(tmp_path):
    data = TinyData()
    alone = {row["image"]: row for row in evaluate_tiny(tmp_path / "alone", data).rows if row["method"] == "Gradient"}
    data.test.ids = ["a", "b", "a", "c", "b", "a"]
    found = [row for row in evaluate_tiny(tmp_path / "twice", data).rows if row["method"] == "Gradient"]
    assert [row["image"] for row in found] == ["a", "b", "c"]
    for row, name in zip(found, ("image-2-0", "image-2-1", "image-2-3"), strict=True):
        assert row["mass_accuracy"] == pytest.approx(alone[name]["mass_accuracy"])


def test_thresholds_are_never_tuned_on_a_map_to_report_on(tmp_path):
    levels = []
    for names in ([f"other-{i}" for i in range(10)], [f"image-2-{i}" for i in range(10)]):
        data = TinyData()
        data.val.ids = names  # the second time like those of the images to report on, whose maps are there by then
        evaluate_tiny(tmp_path / names[0], data, tuning_images=1)
        levels.append(evaluate_tiny(tmp_path / names[0], data).results.protocol["tuned_levels"]["Gradient"])
    records = [
        (tmp_path / name / "out" / "records" / "tuning" / "Gradient.jsonl").read_text().splitlines()
        for name in ("other-0", "image-2-0")
    ]
    assert [json.loads(x)["curves"] for x in records[0]] == [json.loads(x)["curves"] for x in records[1]]
    assert levels[0] == levels[1]


def test_a_mean_of_two_raters_keeps_its_half_scores(tmp_path):
    records = Records(tmp_path, {})
    scores, relevance = [0.0, 0.5, 0.5, 1.5, 2.5, 3.0], [0.0, 1.0, 3.0, 4.0, 5.0, 6.0]
    curves = {"zone_relevance": relevance, "zone_scores": scores}
    records.add("localization", "M", {("a", "severity"): {"values": {}, "curves": curves}})
    summaries = CaseSummaries([ExplainedCase(("a", "severity"), "p", 1.0, 1.0)], [], resamples=5, seed=0)
    found = Assembly(records, ["M"], [], summaries, tuning=[], selected={}).curves(pixels=16, sizes=2)
    (curve,) = [curve for curve in found if curve.name == "relevance_by_score"]
    points = {x: mean.value for x, mean in zip(curve.x, curve.means, strict=True)}
    assert points == {0.0: 0.0, 0.5: 2.0, 1.5: 4.0, 2.5: 5.0, 3.0: 6.0}


def test_a_folder_that_is_removed_in_mid_run_is_an_error(classifier, tmp_path, capsys, monkeypatch):
    add, folder = Records.add, tmp_path / "out"

    def add_and_remove(records, *arguments):
        monkeypatch.setattr(Records, "add", add)  # once: what comes after it must not make the folder anew
        add(records, *arguments)
        shutil.rmtree(folder)

    monkeypatch.setattr(Records, "add", add_and_remove)
    line = refusal(capsys, classifier, classifier.config, folder, "--methods=[Gradient]")
    assert f"{folder}: it was removed while this was at work" in line
    assert not folder.exists()
