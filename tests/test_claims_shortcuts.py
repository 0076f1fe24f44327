"""The parts of the shortcut claim that decide: which run stands out, shares and intervals, and what is laid on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.claims import shortcut_runs, shortcuts
from lightning_chex.data import PATHOLOGIES, SyntheticCXR
from lightning_chex.data.phantom.foreign import Shortcut


def test_a_run_stands_out_by_one_figure_as_measured_by_the_spread_of_that_figure():
    clean = [{"a": 0.1 * i, "b": 10.0 + 0.01 * i} for i in range(10)]
    usual = {"a": 0.55, "b": 10.05}
    assert not shortcuts.highest(usual, clean, ["a", "b"])
    assert shortcuts.highest(usual | {"b": 10.3}, clean, ["a", "b"])  # far beyond, though .2 of "a" would be nothing
    assert not shortcuts.highest(usual | {"b": 9.0}, clean, ["a", "b"])  # a low share is no alarm
    assert not shortcuts.highest(usual | {"b": math.nan, "a": 0.2}, clean, ["a", "b"])
    assert not shortcuts.highest(usual, clean, ["c"])


def test_of_exchangeable_runs_one_in_twenty_stands_out():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(1500):
        runs = [dict(zip("abcd", row, strict=True)) for row in rng.exponential(size=(20, 4)).tolist()]
        alarms += shortcuts.highest(runs[0], runs[1:], list("abcd"))
    assert alarms / 1500 == pytest.approx(0.05, abs=0.017)  # three standard errors


def test_linked_class_and_any_figure_are_counted_for_each_method():
    def run(corners: float, other: float, auroc: float) -> dict[str, float]:
        own = {"iba_corners/Effusion": corners, "iba_edge/Mass": other, "auroc/Effusion": auroc}
        return own | {"grad_cam_corners/Effusion": 0.1}

    rng = np.random.default_rng(1)
    clean = [run(*rng.normal(0.2, 0.01, 3)) for _ in range(19)]
    runs = [run(0.9, 0.2, 0.2), run(0.2, 0.9, 0.2), run(0.2, 0.2, 0.9)]
    found = {rule: shortcuts.count(own) for rule, own in shortcuts.judged("marker", runs, clean).items()}
    assert found == {
        "IBA, the linked class": (1, 3), "IBA, any figure": (2, 3), "Grad-CAM, the linked class": (0, 3),
        "Grad-CAM, any figure": (0, 3), "AUROC, the linked class": (1, 3), "AUROC, any figure": (1, 3),
    }  # fmt: skip


def test_wilsons_interval_and_the_verdict():
    # z = 1.96: (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    z, n, p = 1.959964, 16, 12 / 16
    middle, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert shortcuts.interval((12, 16)) == pytest.approx(
        ((middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)), abs=1e-6
    )
    assert shortcuts.verdict((20, 20), (1, 20)) == "holds"
    assert shortcuts.verdict((3, 16), (0, 16)) == "does not hold"
    assert shortcuts.verdict((15, 16), (1, 16)) == "undecided"
    assert shortcuts.verdict((20, 20), (12, 20)) == "does not hold"
    assert shortcuts.verdict((0, 0), (0, 0)) == "undecided"


class Sum(nn.Module):
    """Its logit of Effusion is the sum of the upper left corner."""

    def forward(self, images):
        logits = torch.zeros(len(images), len(PATHOLOGIES))
        logits[:, PATHOLOGIES.index("Effusion")] = images[:, 0, :13, :13].sum((1, 2))
        return logits


def test_reliance_is_what_the_thing_alone_does_to_the_logit(monkeypatch):
    task = nn.Module()
    task.model = Sum()
    found = shortcut_runs.reliance(task, "marker", 0.5, 0, number=12)
    options = {"images_per_patient": 1, "conspicuity": shortcut_runs.CONSPICUITY, "shortcut": 0.5}
    data = SyntheticCXR(12, shortcut_runs.SIZE, 1000, **options)
    pairs, drawn = [], Shortcut.on
    for shown in (True, False):
        monkeypatch.setattr(
            Shortcut,
            "on",
            lambda self, labelled, rng, shown=shown: replace(drawn(self, labelled, rng), shown=shown),
        )
        pairs.append(torch.stack([data[i]["image"][0, :13, :13].sum() for i in range(12)]).double())
    expected = (pairs[0] - pairs[1]).mean() / pairs[1].std()
    assert found == pytest.approx(float(expected), rel=1e-4) and found > 0
    assert shortcut_runs.reliance(task, "tube", 0.5, 0, number=6) == pytest.approx(0, abs=1e-6)  # lies elsewhere
