"""The sanity checks of an evaluation: what they compare, what they count, what they say of the network."""

import copy
import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small_evaluations import SETTINGS, trained
from torch import nn

from lightning_chex.attribution import Attributor, Gradient
from lightning_chex.cli.main import main
from lightning_chex.evaluation import OtherEvaluationError, Records, randomize_labels, randomize_parameters
from lightning_chex.evaluation.subject import Shuffled

pytestmark = pytest.mark.filterwarnings("ignore")

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))

CLASSES = torch.tensor([0, 1])


class BlankWhere(Attributor):
    """The first weight's sign says whether the map is blank; else it is the image with noise of the weights' size."""

    def maps(self, model, images, target):
        chosen = images[:, 0]
        if float(model[1].weight[0, 0]) < 0:
            return torch.zeros_like(chosen)
        return chosen + float(model[1].weight.abs().sum()) * torch.arange(64.0).view(8, 8).sin()


class Cases(SimpleNamespace):
    def select(self, chosen):
        return Cases(images=self.images, rows=self.rows[chosen], keys=[self.keys[i] for i in chosen])


def parts(folder, network, method):
    """An evaluator's part in the checks: it explains, keeps no map, and has records."""

    def saliency(name, cases):
        return method.attribute(network, cases.images, CLASSES, cases.rows)

    evaluator = SimpleNamespace(
        network=network,
        records=Records(folder, {}),
        settings=SimpleNamespace(seed=0),
        saliency=saliency,
        explained=lambda own, cases: own.explain(network, cases.images, CLASSES, cases.rows),
    )
    return evaluator, Cases(images=IMAGES, rows=torch.arange(2), keys=[("a", "Mass"), ("b", "Mass")])


def network(sign: float = 1) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(3, 64, generator=torch.Generator().manual_seed(1)) * 2)
        model[1].weight[0, 0] = sign
    return model


def test_similarity_is_the_rank_correlation_of_the_maps_at_each_stage(tmp_path):
    """Against scipy: two layers, of which the last alone, then both get initial weights."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)).eval()
    torch.manual_seed(3)

    def build():
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))

    class Edges(Attributor):
        def maps(self, model, images, target):
            noise = torch.arange(64.0).mul(float(model[0].weight.sum() + model[2].weight.sum())).sin()
            return images[:, 0] + noise.view(8, 8)

    evaluator, cases = parts(tmp_path, model, Edges())
    before = Edges().attribute(model, IMAGES, CLASSES, cases.rows)
    randomize_parameters(evaluator, {"Edges": Edges()}, cases, IMAGES, build, lambda _: None)
    torch.manual_seed(0)
    fresh = build()
    stages = [nn.Sequential(model[0], nn.Flatten(), fresh[2]), fresh]
    wanted = model(IMAGES).std(0).mean()
    unscaled = [float(own(IMAGES).std(0).mean() / wanted) for own in stages]
    scaled = [copy.deepcopy(own) for own in stages]
    for own, ratio in zip(scaled, unscaled, strict=True):
        with torch.no_grad():
            own[2].weight.div_(ratio)
    for i, key in enumerate(cases.keys):
        row = evaluator.records.of("randomization", "Edges")[key]
        expected = [
            spearmanr(before[i].flatten(), Edges().attribute(own, IMAGES, CLASSES, cases.rows)[i].flatten()).statistic
            for own in scaled
        ]
        assert row["curves"]["randomization"] == pytest.approx(expected, abs=1e-6)
        assert row["curves"]["randomization_share"] == [0.5, 1.0]
        assert row["values"] == {"randomization": pytest.approx(np.mean(expected)), "randomization_blank": 0}
    about = evaluator.records.read_metadata("randomization")
    assert about["trained_spread"] == pytest.approx(float(wanted), rel=1e-4)
    assert about["unscaled_spread"] == pytest.approx(unscaled, rel=1e-4)
    assert about["spread"] == pytest.approx([1, 1], rel=1e-4)
    assert about["initialisation"] == "the network's own" and about["share"] == [0.5, 1.0]


def test_a_blank_map_is_no_success_but_is_counted(tmp_path):
    evaluator, cases = parts(tmp_path, network(), BlankWhere())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_chex.evaluation.randomization.stages", lambda count: [1, 1, 1])
        weights = iter([network(sign).state_dict() for sign in (-1, 0.5, -1)])
        patch.setattr(
            "lightning_chex.evaluation.randomization.with_weights",
            lambda model, _, layers: _swapped(model, next(weights)),
        )
        randomize_parameters(evaluator, {"Method": BlankWhere()}, cases, IMAGES, None, lambda _: None)
    for row in evaluator.records.of("randomization", "Method").values():
        own = row["curves"]["randomization"]
        assert np.isnan(own[0]) and np.isnan(own[2]) and own[1] > 0.5
        assert row["values"] == {"randomization": own[1], "randomization_blank": pytest.approx(2 / 3)}


def _swapped(model, state):
    from lightning_chex.evaluation import with_weights

    return with_weights(model, state)


def test_a_network_that_dies_is_named(tmp_path):
    model = nn.Sequential(network(), nn.ReLU())

    def build():
        dead = nn.Sequential(network(), nn.ReLU())
        nn.init.constant_(dead[0][1].bias, -1e3)
        return dead

    evaluator, cases = parts(tmp_path, model, Gradient())
    evaluator.saliency = lambda name, own: own.images[own.rows][:, 0]
    evaluator.explained = lambda method, own: SimpleNamespace(maps=own.images[own.rows][:, 0])
    with pytest.warns(UserWarning, match="with 100% of the layers re-initialised, the outputs spread.*less than 10%"):
        randomize_parameters(evaluator, {"Gradient": Gradient()}, cases, IMAGES, build, lambda _: None)
    about = evaluator.records.read_metadata("randomization")
    assert about["dead"] == [1.0] and about["spread"] == [0.0]


def test_maps_of_shuffled_labels_are_compared_and_two_such_networks_never_mixed(tmp_path):
    model, method = network(), BlankWhere()
    evaluator, cases = parts(tmp_path, model, method)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = Shuffled({k: v * 3 for k, v in before.items()}, {"sha256": "one"})
    randomize_labels(evaluator, {"Method": method}, cases, IMAGES, other, lambda _: None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    original = method.attribute(model, IMAGES, CLASSES, cases.rows)
    changed_model = network()
    changed_model.load_state_dict(dict(other.weights))
    changed = method.attribute(changed_model, IMAGES, CLASSES, cases.rows)
    for i, row in enumerate(evaluator.records.of("label_randomization", "Method").values()):
        expected = spearmanr(original[i].flatten(), changed[i].flatten()).statistic
        assert row["values"] == {"label_randomization": pytest.approx(expected), "label_randomization_blank": 0}
    assert evaluator.records.read_metadata("label_randomization")["spread"] == pytest.approx(3)
    with pytest.raises(OtherEvaluationError, match="another shuffled_ckpt"):
        randomize_labels(
            evaluator, {"Method": method}, cases, IMAGES, Shuffled(other.weights, {"sha256": "two"}), lambda _: None
        )


# through the command line


@pytest.fixture(scope="module")
def shuffled(classifier, tmp_path_factory):
    """The classifier trained on shuffled labels: the same command with one more option."""
    root = tmp_path_factory.mktemp("shuffled")
    main(["fit", "--config", classifier.config, "--data.shuffle_labels=true", f"--trainer.default_root_dir={root}"])
    (checkpoint,) = root.rglob("*.ckpt")
    return str(checkpoint)


def evaluated(model, output, *options) -> dict:
    arguments = ["--config", model.config, "--ckpt_path", model.checkpoint, f"--output_dir={output}", *SETTINGS]
    main(["evaluate", *arguments, "--methods=[IBA,Gradient]", "--limit=4", *options])
    return json.loads((Path(output) / "results.json").read_text())


def test_two_commands_make_the_label_check(classifier, shuffled, tmp_path):
    first = evaluated(classifier, tmp_path / "out")
    assert "label_randomization" not in first["measures"] | first["protocol"]
    results = evaluated(classifier, tmp_path / "out", f"--shuffled_ckpt={shuffled}")  # goes on in the same folder
    for found in results["methods"].values():
        assert -1 <= found["label_randomization"]["value"] <= 1
        assert found["label_randomization"]["n"] + found["label_randomization_blank"]["value"] > 0
    about = results["protocol"]["label_randomization"]
    assert about["checkpoint"]["file"] == Path(shuffled).name and about["spread"] > 0
    assert results["methods"]["IBA"]["randomization"] == first["methods"]["IBA"]["randomization"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "shuffled labels" in report and str(classifier.folder) not in report


def test_the_figure_is_the_mean_over_the_stages_of_the_curve(classifier, tmp_path):
    results = evaluated(classifier, tmp_path)
    about = results["protocol"]["randomization"]
    assert about["initialisation"] == "the network's own"
    assert len(about["share"]) == len(about["spread"]) == 5 and about["share"][-1] == 1
    assert about["spread"] == pytest.approx([1] * 5, rel=1e-3) and about["dead"] == []
    assert min(about["unscaled_spread"]) > 0.001
    with (tmp_path / "curves.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["curve"] == "randomization"]
    for name in ("IBA", "Gradient"):
        own = [float(row["value"]) for row in rows if row["method"] == name]
        assert results["methods"][name]["randomization_blank"]["value"] == 0
        assert results["methods"][name]["randomization"]["value"] == pytest.approx(np.mean(own), abs=1e-6)


def test_a_checkpoint_of_true_labels_is_not_taken_without_a_word(classifier, tmp_path):
    with pytest.warns(UserWarning, match="shuffled_ckpt=.* was not saved by a training with data.shuffle_labels"):
        evaluated(classifier, tmp_path, f"--shuffled_ckpt={classifier.checkpoint}")


def test_a_wrong_shuffled_checkpoint_is_one_error(classifier, tmp_path, capsys):
    other = trained(tmp_path / "detectors", "detectors")
    for path, words in (("nowhere.ckpt", "shuffled_ckpt='nowhere.ckpt'"), (other.checkpoint, "severity_0_1")):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            evaluated(classifier, tmp_path / "out", f"--shuffled_ckpt={path}")
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert words in line
