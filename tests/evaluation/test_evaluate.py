"""``evaluate`` through the command line: what it writes, what it takes up again, what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_evaluations import SETTINGS

from lightning_chex.attribution import IBA, NOT_CONVERGED, bits_per_pixel
from lightning_chex.cli.main import main
from lightning_chex.data import SyntheticDataModule
from lightning_chex.maps import read_entries, read_map
from lightning_chex.tasks import ClassificationTask, RegressionTask

pytestmark = pytest.mark.filterwarnings("ignore")


def evaluated(model, output, *options: str, settings=SETTINGS) -> dict:
    main(
        [
            "evaluate",
            "--config",
            model.config,
            "--ckpt_path",
            model.checkpoint,
            f"--output_dir={output}",
            *settings,
            *options,
        ]
    )
    return json.loads((Path(output) / "results.json").read_text())


def refused(capsys, model, output, *options: str, settings=SETTINGS) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        evaluated(model, output, *options, settings=settings)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def methods_of(model) -> str:
    return f"[IBA,InverseIBA,{model.files['MultiLayerIBA']},GradCAM,IntegratedGradients,Gradient,LRP]"


@pytest.fixture(scope="module")
def whole(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    return folder, evaluated(classifier, folder, f"--methods={methods_of(classifier)}")


def curve(folder: Path, method: str, name: str) -> list[dict[str, float]]:
    rows = csv.DictReader((folder / "curves.csv").open())
    return [
        {key: float(row[key]) for key in ("x", "value", "n") if row[key]}
        for row in rows
        if row["method"] == method and row["curve"] == name
    ]


def test_every_method_and_control_has_every_measure(whole):
    folder, results = whole
    assert list(results["methods"]) == [
        "IBA", "InverseIBA", "MultiLayerIBA", "GradCAM", "IntegratedGradients", "Gradient", "LRP",
    ]  # fmt: skip
    assert list(results["controls"]) == ["EveryPixel", "RandomMap", "PriorMap"]
    assert results["regions"] == "boxes" and results["left_out"] == {} and results["task"] == "classification"
    targets = results["protocol"]["data"]["targets"]
    for found in results["methods"].values():
        # a Grad-CAM map can be empty, and then has nothing to be like; and only some methods optimise anything
        assert set(found) | {"randomization", "convergence", "unconverged"} == set(results["measures"])
        assert found["iou/otsu"]["n"] == targets > found["insertion_auc"]["n"] > 0
        assert found["iou/oracle"]["value"] >= found["iou/tuned"]["value"]
        assert sum(own["n"] for own in found["iou/otsu"]["per_class"].values()) == targets
    for found in results["controls"].values():
        unmeasured = {"randomization", "randomization_blank", "convergence", "unconverged", "empty"}
        assert set(found) == set(results["measures"]) - unmeasured
    assert results["controls"]["EveryPixel"]["blank"]["value"] == 1 > results["methods"]["Gradient"]["blank"]["value"]
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_protocol_says_what_was_compared(whole, classifier):
    import hashlib

    _, results = whole
    protocol = results["protocol"]
    content = Path(classifier.checkpoint).read_bytes()
    assert protocol["checkpoint"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert protocol["statistics"] == {layer: {"images": 12, "from": "training split"} for layer in ("layer1", "layer2")}
    assert protocol["settings"]["step"] == 256 and protocol["split"] == "test"
    assert set(protocol["tuned_levels"]["IBA"]) == set(results["class_names"])
    assert str(classifier.folder) not in json.dumps(results)


def test_the_floors_are_what_the_boxes_say(whole):
    """EveryPixel marks all: its IoU is the boxes' share, its deletion a random order, its EHR the share again."""
    _, results = whole
    data = SyntheticDataModule(size=64, num_train=16, num_val=16, num_test=20)
    shares = []
    for i in range(20):
        sample = data.dataset("test")[i]
        for k in sample["box_labels"].unique():
            mask = np.zeros((64, 64), bool)
            for x1, y1, x2, y2 in sample["boxes"][sample["box_labels"] == k].tolist():
                centres = np.arange(64) + 0.5
                inside = ((centres >= y1) & (centres < y2))[:, None] & ((centres >= x1) & (centres < x2))
                mask |= inside
            shares.append(mask.mean())
    every = results["controls"]["EveryPixel"]
    for key in ("iou/fixed_share", "iou/otsu", "iou/oracle", "mass_accuracy", "effective_heat_ratio", "pointing_game"):
        assert every[key]["value"] == pytest.approx(np.mean(shares), abs=1e-5), key
        assert every[key]["n"] == len(shares)


def test_insertion_ends_where_deletion_begins_at_the_models_own_output(whole, classifier):
    folder, results = whole
    rows = list(csv.DictReader((folder / "per_image.csv").open()))
    measured = [row for row in rows if row["method"] == "IBA" and row["insertion_auc"]]
    whole_image = np.mean([float(row["prediction"]) for row in measured])
    for method in ("IBA", "RandomMap"):
        insertion, deletion = curve(folder, method, "insertion"), curve(folder, method, "deletion")
        assert len(insertion) == 64 * 64 // 256 + 1 and insertion[-1]["x"] == 1
        assert insertion[-1]["value"] == pytest.approx(whole_image, abs=1e-5)
        assert deletion[0]["value"] == pytest.approx(whole_image, abs=1e-5)
        assert insertion[0]["value"] == pytest.approx(deletion[-1]["value"], abs=1e-5)
        values = [point["value"] for point in insertion]
        assert len(set(values)) == len(values)  # every step differs
        area = np.trapezoid(values, [point["x"] for point in insertion])
        where = results["methods" if method == "IBA" else "controls"][method]
        assert where["insertion_auc"]["value"] == pytest.approx(area, abs=1e-4)


def test_maps_are_those_of_the_method_in_full_precision(whole, classifier):
    folder, _ = whole
    network = ClassificationTask.load_from_checkpoint(classifier.checkpoint, weights_only=True)
    data = SyntheticDataModule(size=64, batch_size=4, num_train=16, num_val=16, num_test=20)
    from lightning_chex.maps import training_batches

    iba = IBA("layer2").fit(network.model.eval(), training_batches(data, 12, 0)())
    sample = next(data.dataset("test")[i] for i in range(20) if len(data.dataset("test")[i]["boxes"]))
    k = int(sample["box_labels"][0])
    expected = iba.attribute(network.model, sample["image"][None], torch.tensor([k]))[0]
    (entry,) = [
        entry
        for entry in read_entries(folder / "maps" / "IBA" / "index.csv")
        if (entry["image"], entry["target"]) == (sample["image_id"], data.class_names[k])
    ]
    cells = read_map(folder / "maps" / "IBA", entry)
    assert cells.dtype == np.float32 and cells.shape == (8, 8) and float(entry["convergence"]) > 0
    found = bits_per_pixel(torch.from_numpy(cells)[None], (64, 64))[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-6)


def test_every_case_has_a_row_per_method(whole):
    folder, results = whole
    rows = list(csv.DictReader((folder / "per_image.csv").open()))
    assert len(rows) == results["protocol"]["data"]["targets"] * 10
    own = [float(row["iou/otsu"]) for row in rows if row["method"] == "LRP"]
    assert np.mean(own) == pytest.approx(results["methods"]["LRP"]["iou/otsu"]["value"], abs=1e-5)
    assert all(0 <= float(row["prediction"]) <= 1 for row in rows)


class Interrupted(Exception):
    pass


def test_an_interrupted_evaluation_goes_on_and_ends_the_same(classifier, whole, tmp_path, monkeypatch):
    from lightning_chex.evaluation import evaluator

    calls = 0
    original = evaluator.Evaluator.explained

    def breaks(self, method, cases):
        nonlocal calls
        calls += 1
        if calls == 25:
            raise Interrupted
        return original(self, method, cases)

    monkeypatch.setattr(evaluator.Evaluator, "explained", breaks)
    options = [f"--methods={methods_of(classifier)}"]
    with pytest.raises(Interrupted):
        evaluated(classifier, tmp_path / "out", *options)
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "maps").rglob("*.npy")}
    assert before and not (tmp_path / "out" / "results.json").exists()
    # as if the process had died in the middle of a line
    with (tmp_path / "out" / "records" / "tuning" / "IBA.jsonl").open("a") as file:
        file.write('{"image": "half')
    calls = -10_000
    again = evaluated(classifier, tmp_path / "out", *options)
    assert again == whole[1]
    for name in ("curves.csv", "per_image.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (whole[0] / name).read_bytes()
    assert all(path.read_bytes()[128:].startswith(maps[128:]) for path, maps in before.items())  # they only grew
    calls = 0  # and a third time nothing is explained again
    monkeypatch.setattr(evaluator.Evaluator, "explained", lambda *_: pytest.fail("explained what is on record"))
    assert evaluated(classifier, tmp_path / "out", *options) == whole[1]


def test_a_limit_first_and_more_methods_later_take_up_what_is_there(classifier, tmp_path):
    quick = evaluated(classifier, tmp_path, "--methods=[Gradient]", "--limit=4")
    assert quick["protocol"]["data"]["images"] <= 4 and quick["protocol"]["limit"] == 4
    maps = read_entries(tmp_path / "maps" / "Gradient" / "index.csv")
    more = evaluated(classifier, tmp_path, f"--methods=[Gradient,{classifier.files['Quick']}]")
    assert list(more["methods"]) == ["Gradient", "Quick"]
    now = read_entries(tmp_path / "maps" / "Gradient" / "index.csv")
    assert more["protocol"]["data"]["images"] > 4 and now[: len(maps)] == maps and len(now) > len(maps) > 0


def test_more_images_of_an_expensive_measure_can_be_asked_for_later(classifier, tmp_path):
    few = evaluated(classifier, tmp_path, "--methods=[Gradient]", "--settings.tuning_images=0")
    assert few["protocol"]["data"]["perturbation_images"] == 2 and "iou/tuned" not in few["methods"]["Gradient"]
    more = evaluated(classifier, tmp_path, "--methods=[Gradient]", "--settings.perturbation_images=4")
    assert more["protocol"]["data"]["perturbation_images"] == 4 and "iou/tuned" in more["methods"]["Gradient"]
    assert more["methods"]["Gradient"]["iou/otsu"] == few["methods"]["Gradient"]["iou/otsu"]


def test_another_model_or_other_settings_never_mix(classifier, tmp_path, capsys):
    evaluated(classifier, tmp_path / "out", "--methods=[Gradient]", "--limit=2")
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    other = tmp_path / "other.ckpt"
    state = torch.load(classifier.checkpoint, weights_only=True)
    next(iter(state["state_dict"].values())).add_(1)
    torch.save(state, other)
    line = refused(capsys, classifier, tmp_path / "out", "--methods=[Gradient]", f"--ckpt_path={other}")
    assert "other checkpoint" in line and "another folder" in line
    line = refused(capsys, classifier, tmp_path / "out", "--methods=[Gradient]", "--settings.step=100")
    assert "other settings" in line
    line = refused(capsys, classifier, tmp_path / "out", "--methods=[Gradient]", "--data.num_test=7")
    assert "other data" in line
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_method_of_the_same_name_with_other_settings_is_refused(classifier, tmp_path, capsys):
    evaluated(classifier, tmp_path / "out", f"--methods=[{classifier.files['Quick']}]", "--limit=2")
    changed = tmp_path / "Quick.yaml"
    changed.write_text(Path(classifier.files["Quick"]).read_text().replace("steps: 1", "steps: 3"))
    line = refused(capsys, classifier, tmp_path / "out", f"--methods=[{changed}]", "--limit=2")
    assert "method Quick" in line and "another name" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods=[SmoothGrad]"], "SmoothGrad' is unknown: choose from IBA, InverseIBA"),
        (["--methods=[nowhere.yaml]"], "cannot be read"),
        (["--methods=[MultiLayerIBA]"], "layer='features.denseblock1' is not a module"),
        (["--methods=[Gradient,Gradient]"], "twice"),
        (["--limit=0"], "limit=0 must be at least 1"),
        (["--settings.regions=zones", "--settings.step=0"], "step=0 must be at least 1 pixel"),
        (["--methods=[Gradient]", "--settings.step=3000"], "step=3000 is more than half of the 64 x 64 pixels"),
        (["--methods=[Gradient]", "--settings.blur_kernel=131"], "blur_kernel=131 is too large"),
        (["--settings.top_fraction=2"], "top_fraction=2.0 must lie in (0, 1]"),
        (["--settings.regions=heart"], "heart"),
        (["--ckpt_path=nowhere.ckpt"], "does not exist"),
        (["--ckpt_path=null"], "evaluate needs trained weights: give --ckpt_path"),
        (["--lungs=nowhere.ckpt"], "lungs='nowhere.ckpt' is no checkpoint to use: it does not exist"),
        (["--network=brain"], "network='brain' is not a module"),
        (["--model.backbone=test_vit"], "does not fit the model"),
        (["--data.target=severity"], "class_names"),
    ],
)
def test_bad_arguments_are_one_error_before_any_long_work(classifier, tmp_path, capsys, options, words):
    assert words in refused(capsys, classifier, tmp_path / "out", *options)
    assert not (tmp_path / "out" / "records").exists()


def test_a_folder_with_unknown_results_is_left_alone(classifier, tmp_path, capsys):
    (tmp_path / "results.json").write_text("{}")
    assert "give another folder" in refused(capsys, classifier, tmp_path, "--methods=[Gradient]")
    assert (tmp_path / "results.json").read_text() == "{}"


def test_methods_that_do_not_suit_the_model_are_left_out_with_a_reason(classifier, tmp_path):
    results = evaluated(classifier, tmp_path, "--limit=2")
    assert "features.denseblock1" in results["left_out"]["MultiLayerIBA"]
    assert list(results["methods"]) == ["IBA", "InverseIBA", "GradCAM", "IntegratedGradients", "Gradient", "LRP"]


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_the_phantoms_masks_can_judge_instead_of_boxes(classifier, tmp_path, kind):
    results = evaluated(classifier, tmp_path, "--methods=[Gradient]", f"--settings.regions={kind}", "--limit=6")
    assert results["regions"] == kind
    # a mask lies in its box, so marking all scores less
    share = results["controls"]["EveryPixel"]["iou/oracle"]["value"]
    assert 0 < share < 0.2


def test_a_step_that_does_not_meet_the_half_ends_the_half_range_before_it(classifier, tmp_path):
    evaluated(classifier, tmp_path, "--methods=[Gradient]", "--limit=4", "--settings.step=300")
    points = curve(tmp_path, "Gradient", "insertion")
    assert [point["x"] for point in points[:3]] == pytest.approx([0, 300 / 4096, 600 / 4096], abs=1e-6)
    half = [point for point in points if point["x"] <= 0.5]
    area = np.trapezoid([p["value"] for p in half], [p["x"] for p in half]) / half[-1]["x"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["methods"]["Gradient"]["insertion_auc_half"]["value"] == pytest.approx(area, abs=1e-4)


def test_detectors_are_judged_by_the_zones_of_their_scores(detectors, tmp_path):
    results = evaluated(detectors, tmp_path, "--methods=[IBA,Gradient]")
    assert results["regions"] == "zones" and list(results["controls"]) == [
        "EveryPixel",
        "RandomMap",
        "PriorMap",
        "LungField",
    ]
    data = SyntheticDataModule(size=64, num_train=16, num_val=16, num_test=20, target="detectors")
    from lightning_chex.data import lung_zones

    shares = []
    for i in range(20):
        sample = data.dataset("test")[i]
        zones, scores = lung_zones(sample["lung_mask"]), sample["zones"]
        for wanted in ([0, 1], [2], [3]):
            own = [zones[z].numpy() for z in range(6) if int(scores[z]) in wanted]
            if own:
                shares.append(np.logical_or.reduce(own).mean())
    assert results["controls"]["EveryPixel"]["iou/oracle"]["value"] == pytest.approx(np.mean(shares), abs=1e-5)
    assert results["controls"]["EveryPixel"]["iou/oracle"]["n"] == len(shares)
    # the lung field contains every zone: its IoU is the zones' share of the lungs, far above that of marking all
    lungs, every = (results["controls"][name]["iou/otsu"]["value"] for name in ("LungField", "EveryPixel"))
    assert lungs > 2 * every


def test_a_severity_is_correlated_with_the_zone_scores(regressor, tmp_path):
    results = evaluated(regressor, tmp_path, "--methods=[RegressionIBA_DV,RegressionIBA_MSE,RegressionIBA_RM,Gradient]")
    assert results["task"] == "regression" and results["class_names"] == []
    for found in [*results["methods"].values(), *results["controls"].values()]:
        assert "per_class" not in found["iou/otsu"] and -1 <= found["severity_correlation"]["value"] <= 1
    assert abs(results["controls"]["RandomMap"]["severity_correlation"]["value"]) < 0.05
    assert results["controls"]["EveryPixel"]["severity_correlation"]["value"] == 0
    assert results["controls"]["LungField"]["severity_correlation"]["value"] > 0.5
    points = curve(tmp_path, "LungField", "relevance_by_score")
    assert [point["x"] for point in points] == [0, 1, 2, 3]
    assert all(point["value"] == pytest.approx(1) for point in points)  # a field is the same in every zone


def test_the_checkpoints_statistics_serve_where_there_are_only_test_images(classifier, tmp_path, monkeypatch, capsys):
    from lightning_chex.data import DataError

    original = SyntheticDataModule.dataset

    def test_images_alone(self, split):
        if split != "test":
            raise DataError(f"the {split} split of SyntheticDataModule holds no image")
        return original(self, split)

    monkeypatch.setattr(SyntheticDataModule, "dataset", test_images_alone)
    monkeypatch.setattr(SyntheticDataModule, "parts", lambda self: {"train": (), "test": original(self, "test")})
    monkeypatch.setattr(SyntheticDataModule, "fingerprint", lambda self: "test images alone")
    results = evaluated(classifier, tmp_path / "out", "--methods=[IBA,Gradient]")
    assert results["protocol"]["statistics"] == {"layer2": {"images": 16, "from": "checkpoint"}}
    assert "no image" in results["left_out"]["PriorMap"] and "iou/tuned" not in results["methods"]["IBA"]
    line = refused(capsys, classifier, tmp_path / "other", f"--methods=[{classifier.files['IBA_layer1']}]")
    assert "no feature statistics of layer1" in line


def test_model_and_random_state_are_left_as_they_were(regressor, tmp_path):
    from lightning_chex.cli.trainer import ChexTrainer
    from lightning_chex.evaluation import EvaluationSettings

    model = RegressionTask.load_from_checkpoint(regressor.checkpoint, weights_only=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    data = SyntheticDataModule(size=64, batch_size=4, num_train=16, num_val=4, num_test=4, target="severity")
    trainer = ChexTrainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    settings = EvaluationSettings(
        resamples=50, sensitivity_sizes=2, sensitivity_masks=3, step=1024, randomization_images=1
    )
    found = trainer.evaluate(model, data, output_dir=str(tmp_path / "out"), methods=["Gradient"], settings=settings)
    assert found.results.protocol["checkpoint"]["file"] == "weights in memory"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_a_cpu_gives(classifier, tmp_path):
    options = [f"--methods={methods_of(classifier)}", "--limit=6"]
    here = evaluated(classifier, tmp_path / "cpu", *options)
    there = evaluated(classifier, tmp_path / "gpu", *options, "--trainer.accelerator=gpu")
    for name, found in here["methods"].items():
        for key in ("iou/oracle", "insertion_auc", "road_morf"):
            assert there["methods"][name][key]["value"] == pytest.approx(found[key]["value"], abs=0.02), (name, key)


def test_differences_are_those_of_the_same_cases(whole):
    folder, results = whole
    values: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for row in csv.DictReader((folder / "per_image.csv").open()):
        values.setdefault(row["method"], {})[row["image"], row["target"]] = row
    methods, controls = list(results["methods"]), list(results["controls"])
    expected = [(m, o) for k, m in enumerate(methods) for o in [*methods[k + 1 :], *controls]]
    for key in ("iou/otsu", "deletion_auc"):
        pairs = {(each["method"], each["other"]): each for each in results["differences"][key]}
        assert list(pairs) == expected
        for (method, other), found in pairs.items():
            less = [
                float(own[key]) - float(values[other][case][key])
                for case, own in values[method].items()
                if own[key] and values[other][case][key]
            ]
            assert found["n"] == len(less) and found["value"] == pytest.approx(np.mean(less), abs=1e-5)
            assert found["ci_low"] <= found["value"] <= found["ci_high"] and "per_class" not in found
            assert found["patients"] <= results["protocol"]["data"]["patients"]
    assert {"blank", "convergence"}.isdisjoint(results["differences"])  # no direction is the better one
    assert all(each["other"] in methods for each in results["differences"]["randomization"])


def test_how_far_maps_had_converged_goes_from_the_method_into_the_report(whole):
    folder, results = whole
    rows = list(csv.DictReader((folder / "per_image.csv").open()))
    for name in ("IBA", "MultiLayerIBA"):
        own = [float(row["convergence"]) for row in rows if row["method"] == name]
        found = results["methods"][name]
        assert found["convergence"]["value"] == pytest.approx(np.median(own), rel=1e-4) and len(set(own)) > 1
        assert found["convergence"]["n"] == len(own) == results["protocol"]["data"]["targets"]
        share = np.mean([value > NOT_CONVERGED for value in own])
        assert found["unconverged"]["value"] == pytest.approx(share)
    assert "convergence" not in results["methods"]["Gradient"]
    for name, found in results["methods"].items():
        empty = [float(row["empty"]) for row in rows if row["method"] == name]
        assert found["empty"]["value"] == pytest.approx(np.mean(empty)) and found["empty"]["n"] == len(empty)
        counted = {"empty": sum(empty), "maps": len(empty), "in_means": True}
        assert results["protocol"]["empty_maps"][name] == counted
    assert 'id="convergence"' in (folder / "report.html").read_text()
