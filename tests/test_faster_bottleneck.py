"""The benchmark of faster bottlenecks runs from its command line, and its rule and costs are what it says."""

import json
import sys
import warnings

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from benchmarks.faster_bottleneck import __main__ as command
from benchmarks.faster_bottleneck.cases import Setting
from benchmarks.faster_bottleneck.measure import Found, fallen_back, margin
from benchmarks.faster_bottleneck.schemes import pooled_first
from lightning_chex.data import SyntheticDataModule
from lightning_chex.tasks import ClassificationTask


def test_it_runs_small_on_the_phantom(tmp_path, monkeypatch):
    torch.manual_seed(0)
    task = ClassificationTask(SyntheticDataModule(size=64).class_names, backbone="test_resnet")
    trainer = pl.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_model_summary=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "network.ckpt")
    out = tmp_path / "faster"
    sizes = "--size 64 --learnt 6 --chosen 4 --reported 4 --batch 2 --epochs 1 --layer layer2"
    arguments = ["benchmark", "--ckpt_path", str(tmp_path / "network.ckpt"), "--out", str(out), *sizes.split()]
    monkeypatch.setattr(sys, "argv", arguments)
    with warnings.catch_warnings():
        command.main()
    (own,) = json.loads(out.with_suffix(".json").read_text()).values()
    assert len(set(own["patients"])) == 4
    reference = own["found"].pop("default, 15 x 2")
    assert reference["agreement"] == pytest.approx([1.0] * 4) and reference["bits"] == pytest.approx([1.0] * 4)
    assert {len(found["agreement"]) for found in own["found"].values()} == {4}
    assert all(found["passes"] and min(found["passes"]) > 0 for found in own["found"].values())
    assert max(own["found"]["class mean"]["agreement"]) < 1
    page = out.with_suffix(".md").read_text()
    assert all(f"| {name} |" in page for name in own["found"])
    assert str(tmp_path) not in page


def test_the_margin_keeps_every_bad_map_of_the_images_to_choose_with_out():
    limit = margin(Found(agreement=[0.999, 0.97, 0.995, 0.90], excess=[0.5, 0.3, 0.1, 0.4]))
    assert limit == 0.3
    after, often = fallen_back(Found(agreement=[0.95, 0.99], bits=[1.2, 1.1], excess=[0.35, 0.2]), limit)
    assert after.agreement == [1.0, 0.99] and after.bits == [1.0, 1.1] and often == 0.5
    assert margin(Found(agreement=[0.99], excess=[3.0])) == float("inf")


def test_pooling_before_a_1_x_1_convolution_changes_nothing():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    transition = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AvgPool2d(2))
    network = nn.Sequential(first, transition, nn.Flatten(), nn.Linear(4 * 16, 3)).eval()
    images = torch.randn(4, 3, 8, 8)
    setting = Setting.of(network, "0", images)
    other = pooled_first(network, setting)
    features, carried = setting.part.below(images)
    torch.testing.assert_close(other.part.above(features, carried), network(images))
