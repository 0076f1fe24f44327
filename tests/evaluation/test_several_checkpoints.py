"""``evaluate`` on several checkpoints: each as if alone, and their paired differences, held to plain numpy."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from small_evaluations import SETTINGS

from lightning_chex.cli.main import main
from lightning_chex.data import SyntheticDataModule
from lightning_chex.evaluation import evaluator
from lightning_chex.tasks import ClassificationTask

pytestmark = pytest.mark.filterwarnings("ignore")


QUICK = [*SETTINGS, "--settings.randomization_images=0", "--settings.tuning_images=3"]

FEW = ["--limit=2", "--methods=[Gradient]", "--settings.perturbation_images=0"]


def evaluated(model, checkpoints: str, output, *options: str) -> None:
    main(
        [
            "evaluate",
            "--config",
            model.config,
            f"--ckpt_path={checkpoints}",
            f"--output_dir={output}",
            *QUICK,
            "--methods=[IntegratedGradients,Gradient]",
            *options,
        ]
    )


def refused(capsys, *arguments) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        evaluated(*arguments)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def altered(model, folder: Path, name: str = "best.ckpt", **changes) -> Path:
    """The same checkpoint with other weights."""
    content = torch.load(model.checkpoint, weights_only=True)
    generator = torch.Generator().manual_seed(1)
    for key, value in content["state_dict"].items():
        if key.endswith("weight") and value.ndim == 4:
            content["state_dict"][key] = value + 0.3 * value.std() * torch.randn(value.shape, generator=generator)
    content["hyper_parameters"] = {**content["hyper_parameters"], **changes}
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def two(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    other = altered(classifier, folder / "weights")
    evaluated(classifier, f"{{plain: {classifier.checkpoint}, other: {other}}}", folder / "out")
    return folder / "out", other, json.loads((folder / "out" / "comparison.json").read_text())


def rows_of(folder: Path) -> dict:
    rows = csv.DictReader((folder / "per_image.csv").open())
    return {(row["image"], row["target"], row["method"]): row for row in rows}


def test_each_checkpoint_has_the_results_it_has_alone(two, classifier, tmp_path):
    folder, other, _ = two
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["other", "plain"]
    for name, checkpoint in (("plain", classifier.checkpoint), ("other", other)):
        evaluated(classifier, checkpoint, tmp_path / name)
        for file in ("per_image.csv", "curves.csv", "results.json"):
            assert (folder / name / file).read_bytes() == (tmp_path / name / file).read_bytes(), (name, file)
        assert (folder / name / "report.html").exists() and not (tmp_path / name / "comparison.json").exists()
    results = [json.loads((folder / name / "results.json").read_text()) for name in ("plain", "other")]
    assert results[0]["protocol"]["checkpoint"]["sha256"] != results[1]["protocol"]["checkpoint"]["sha256"]


@pytest.mark.parametrize("key", ["iou/fixed_share", "iou/otsu", "insertion_auc", "deletion_auc", "sensitivity_n"])
def test_differences_are_those_of_the_rows_of_each_case(two, key):
    folder, _, found = two
    plain, other = (rows_of(folder / name) for name in ("plain", "other"))
    dataset = SyntheticDataModule(size=64, num_train=16, num_val=16, num_test=20).explained_dataset("test")
    patients = {sample["image_id"]: sample["patient_id"] for sample in (dataset[i] for i in range(len(dataset)))}
    assert plain.keys() == other.keys() and found["cases"]["alone"] == {"plain": 0, "other": 0}
    assert found["cases"]["common"] == len({case[:2] for case in plain})
    pairs = {(one["method"], one["checkpoint"], one["other"]): one for one in found["differences"][key]}
    assert {pair[1:] for pair in pairs} == {("other", "plain")}  # the later one less the earlier one
    for method in ("IntegratedGradients", "Gradient"):
        cases = [case for case in plain if case[2] == method and plain[case][key] and other[case][key]]
        less = np.array([float(other[case][key]) - float(plain[case][key]) for case in cases])
        own = pairs[method, "other", "plain"]
        assert own["n"] == len(less) > 0 and own["patients"] == len({patients[case[0]] for case in cases})
        assert own["value"] == pytest.approx(less.mean(), abs=2e-6)
        assert less.std() > 0 and own["ci_low"] < own["value"] < own["ci_high"]
        for name, rows in (("plain", plain), ("other", other)):
            values = [float(row[key]) for case, row in rows.items() if case[2] == method and row[key]]
            assert found["values"][key][method][name]["value"] == pytest.approx(np.mean(values), abs=2e-6)
        if not key.startswith("iou/"):
            assert "per_class" not in own
            continue
        for name in found["class_names"]:
            among = [value for case, value in zip(cases, less, strict=True) if case[1] == name]
            assert (name in own["per_class"]) == bool(among)
            if among:
                assert own["per_class"][name]["value"] == pytest.approx(np.mean(among), abs=2e-6)
                assert own["per_class"][name]["n"] == len(among)


def test_a_map_that_knows_nothing_of_the_network_does_not_differ_in_place(two):
    _, _, found = two
    for key, same in (("iou/fixed_share", True), ("insertion_auc", False)):
        for one in found["differences"][key]:
            if one["method"] in ("EveryPixel", "RandomMap", "PriorMap"):
                assert (one["value"] == 0 == one["ci_low"] == one["ci_high"]) == same, (key, one["method"])


def test_the_scores_are_those_of_all_images_reported_on(two, classifier):
    _, other, found = two
    data = SyntheticDataModule(size=64, num_train=16, num_val=16, num_test=20)
    samples = [data.explained_dataset("test")[i] for i in range(len(data.explained_dataset("test")))]
    images = torch.stack([sample["image"] for sample in samples])
    labels = torch.stack([sample["label"] for sample in samples]).numpy()
    for name, checkpoint in (("plain", classifier.checkpoint), ("other", other)):
        network = ClassificationTask.load_from_checkpoint(checkpoint, weights_only=True).model.eval()
        with torch.no_grad():
            outputs = network(images).numpy()
        scores = found["checkpoints"][name]["scores"]
        means = {"auroc": [], "ap": []}
        for k, label in enumerate(data.class_names):
            if 0 < labels[:, k].sum() < len(labels):
                for measure, function in (("auroc", roc_auc_score), ("ap", average_precision_score)):
                    means[measure].append(function(labels[:, k], outputs[:, k]))
                    assert scores[f"{measure}/{label}"] == pytest.approx(means[measure][-1], abs=1e-5)
            else:
                assert f"auroc/{label}" not in scores
        for measure, values in means.items():
            assert len(values) > 1 and scores[measure] == pytest.approx(np.mean(values), abs=1e-5)


def test_the_page_shows_what_the_file_holds(two, capsys):
    folder, _, found = two
    page = (folder / "comparison.html").read_text()
    assert "<script" not in page and "http://" not in page and "https://" not in page
    for name in ("plain", "other"):
        assert f'href="{name}/report.html"' in page
    text = re.sub(r"<[^>]+>", " ", page)
    assert "other less plain" in text and "How well they predict" in text and "IoU by class" in text
    assert "The cases differ" not in text and "fewer than 30" in text  # of twenty images
    for method in ("IntegratedGradients", "Gradient"):
        for name in ("plain", "other"):
            value = found["values"]["iou/fixed_share"][method][name]["value"]
            assert f"{value:.3f}" in text
    assert f"{found['checkpoints']['other']['scores']['auroc']:.3f}" in text


def test_called_again_nothing_is_explained_again_and_a_third_checkpoint_joins(two, classifier, monkeypatch, capsys):
    folder, other, found = two
    third = altered(classifier, other.parent, "third.ckpt", lr=0.5)
    original, made = evaluator.Evaluator.explained, []

    def counted(self, method, cases):
        made.append(len(cases))
        return original(self, method, cases)

    monkeypatch.setattr(evaluator.Evaluator, "explained", counted)
    evaluated(classifier, f"{{plain: {classifier.checkpoint}, other: {other}}}", folder)
    assert made == [] and json.loads((folder / "comparison.json").read_text()) == found
    evaluated(classifier, f"{{plain: {classifier.checkpoint}, other: {other}, third: {third}}}", folder)
    assert made
    three = json.loads((folder / "comparison.json").read_text())
    pairs = {(one["checkpoint"], one["other"]) for one in three["differences"]["iou/otsu"]}
    assert pairs == {("other", "plain"), ("third", "plain"), ("third", "other")}
    assert three["values"]["iou/otsu"]["Gradient"]["other"] == found["values"]["iou/otsu"]["Gradient"]["other"]
    printed = capsys.readouterr().out
    assert "third less other" in printed and "AUROC" in printed and "comparison.html" in printed


def test_files_of_one_name_are_called_by_their_runs_and_one_in_a_list_is_one(classifier, tmp_path):
    first, second = (altered(classifier, tmp_path / name) for name in ("first", "second"))
    evaluated(classifier, f"[{first},{second}]", tmp_path / "out", *FEW)
    assert list(json.loads((tmp_path / "out" / "comparison.json").read_text())["checkpoints"]) == ["first", "second"]
    evaluated(classifier, f"[{first}]", tmp_path / "alone", *FEW)
    assert (tmp_path / "alone" / "results.json").exists() and not (tmp_path / "alone" / "comparison.json").exists()


def test_a_severity_has_its_own_scores_and_no_classes(regressor, tmp_path):
    other = altered(regressor, tmp_path / "weights", "other.ckpt")
    evaluated(
        regressor,
        f"{{plain: {regressor.checkpoint}, other: {other}}}",
        tmp_path / "out",
        "--limit=6",
        "--methods=[Gradient]",
        "--settings.perturbation_images=0",
    )
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    rows = [row for case, row in rows_of(tmp_path / "out" / "other").items() if case[2] == "Gradient"]
    predicted, truth = (np.array([float(row[column]) for row in rows]) for column in ("prediction", "truth"))
    scores = found["checkpoints"]["other"]["scores"]
    assert scores["mae"] == pytest.approx(np.abs(predicted - truth).mean(), rel=1e-4)
    assert scores["pearson"] == pytest.approx(np.corrcoef(predicted, truth)[0, 1], rel=1e-3)
    assert found["class_names"] == [] and found["differences"]["severity_correlation"]
    assert "IoU by class" not in (tmp_path / "out" / "comparison.html").read_text()


def test_measures_on_other_cases_are_said(classifier, tmp_path, capsys):
    """Perturbation is measured where a checkpoint is sure enough, which another one may not be."""
    sure, unsure = tmp_path / "sure.ckpt", tmp_path / "unsure.ckpt"
    for path, bias in ((sure, 5.0), (unsure, 0.0)):
        content = torch.load(classifier.checkpoint, weights_only=True)
        state = content["state_dict"]
        (last,) = [key for key in state if key.endswith("fc.bias")]
        state[last] = torch.full_like(state[last], bias)
        state[last][::2] = 5.0
        torch.save(content, path)
    options = ["--settings.min_probability=0.9", "--methods=[Gradient]"]
    evaluated(classifier, f"[{sure},{unsure}]", tmp_path / "out", *options)
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["cases"]["alone"] == {"sure": 0, "unsure": 0}
    numbers = {name: own["n"] for name, own in found["values"]["insertion_auc"]["Gradient"].items()}
    assert numbers["sure"] > numbers["unsure"] > 0
    (difference,) = [one for one in found["differences"]["insertion_auc"] if one["method"] == "Gradient"]
    assert difference["n"] == numbers["unsure"]
    assert any("Insertion AUC" in said and "different cases" in said for said in found["warnings"])
    assert not any("IoU" in said for said in found["warnings"])
    assert "The cases differ" in (tmp_path / "out" / "comparison.html").read_text()
    assert "the cases differ" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused_before_any_work(classifier, tmp_path, capsys):
    other = altered(classifier, tmp_path / "weights")
    (tmp_path / "link.ckpt").symlink_to(other)
    names = torch.load(classifier.checkpoint, weights_only=True)["hyper_parameters"]["class_names"]
    renamed = altered(classifier, tmp_path / "renamed", class_names=[*names[:-1], "Elsewhere"])
    content = torch.load(classifier.checkpoint, weights_only=True)
    key = next(iter(content["state_dict"]))
    content["state_dict"][key] = content["state_dict"][key][:1]
    torch.save(content, tmp_path / "smaller.ckpt")
    out = tmp_path / "out"
    plain = classifier.checkpoint
    for given, told in (
        (f"[{other},{other}]", ["twice", "different checkpoints"]),
        (f"[{other},{tmp_path / 'link.ckpt'}]", ["twice", "too"]),
        (f"[{plain},{tmp_path / 'absent.ckpt'}]", ["absent.ckpt", "does not exist"]),
        (f"[{plain},{renamed}]", ["classes", "Elsewhere"]),
        (f"[{plain},{tmp_path / 'smaller.ckpt'}]", ["smaller.ckpt", "another model", key]),
        (f"{{../up: {plain}, other: {other}}}", ["../up", "folder"]),
        (f"{{comparison.json: {plain}, other: {other}}}", ["comparison.json"]),
        (f"[{plain},last]", ["'last'", "a file"]),
        (f"{{a: {plain}, b: https://example.org/b.ckpt}}", ["remote path"]),
    ):
        line = refused(capsys, classifier, given, out)
        assert all(word in line for word in told), line
        assert not out.exists(), given


def test_the_folder_of_something_else_is_left_alone(classifier, tmp_path, capsys):
    other = altered(classifier, tmp_path / "weights")
    both = f"{{plain: {classifier.checkpoint}, other: {other}}}"
    evaluated(classifier, classifier.checkpoint, tmp_path / "single", *FEW)
    line = refused(capsys, classifier, both, tmp_path / "single", *FEW)
    assert "one checkpoint" in line and "another folder" in line
    evaluated(classifier, both, tmp_path / "both", *FEW)
    line = refused(capsys, classifier, classifier.checkpoint, tmp_path / "both", *FEW)
    assert "another folder" in line
    swapped = f"{{plain: {other}, other: {classifier.checkpoint}}}"
    line = refused(capsys, classifier, swapped, tmp_path / "both", *FEW)
    assert "other checkpoint" in line and os.fspath(tmp_path / "both" / "plain") in line
