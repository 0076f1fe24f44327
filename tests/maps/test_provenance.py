"""What records say of methods and checkpoints."""

import json
import zipfile

import pytest
import torch
from tiny import TinyTask
from torch import nn

from lightning_chex.attribution import IBA, GradCAM, IntegratedGradients, InverseIBA, MultiLayerIBA, PriorMap
from lightning_chex.checkpoints import read_checkpoint
from lightning_chex.maps import describe, origin

METHODS = [
    IBA(layer="0"),
    IBA(layer="1"),
    IBA(layer="0", beta=11),
    IBA(layer="0", objective="deviation"),
    IBA(layer="0", statistics_per="channel"),
    InverseIBA(layer="0", beta=10),
    MultiLayerIBA(layers=["0", "1"]),
    MultiLayerIBA(layers=["0", "1"], beta=[10, 11]),
    MultiLayerIBA(layers=["0", "1"], combine="intersection"),
    GradCAM(layer="0"),
    IntegratedGradients(steps=8),
    IntegratedGradients(steps=8, baseline="blurred"),
    PriorMap(torch.ones(1, 2, 2)),
    PriorMap(torch.zeros(1, 2, 2)),
]


def test_whatever_changes_maps_changes_the_description():
    described = [json.dumps(describe(method), sort_keys=True) for method in METHODS]
    assert len(set(described)) == len(METHODS)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    fitted = IBA(layer="0", batch_size=3, memory=1.0).fit(model, [torch.rand(60, 3, 4, 4)])
    assert json.dumps(describe(fitted), sort_keys=True) == described[0]  # neither what it learnt nor how it computes


def test_a_checkpoint_tells_of_callbacks_and_settings_without_its_weights(tmp_path):
    path = tmp_path / "best.ckpt"
    content = {"callbacks": {"a": {"count": torch.tensor(3)}}, "hyper_parameters": {"k": [1]}}
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6", **content}, path)
    read = read_checkpoint(path)
    assert read["callbacks"]["a"]["count"] == 3 and read["hyper_parameters"] == {"k": [1]}
    whole = origin(path, TinyTask())
    assert whole["file"] == "best.ckpt" and len(whole["sha256"]) == 64
    path.write_bytes(path.read_bytes() + b"0")
    assert origin(path, TinyTask())["sha256"] != whole["sha256"]


class Hostile:
    def __reduce__(self):
        return print, ("executed",)


def test_what_is_no_checkpoint_is_told_and_never_executed(tmp_path, capsys):
    torch.save({"callbacks": Hostile()}, tmp_path / "hostile.ckpt")
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("a", "b")
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    for name in ("hostile", "other", "list", "plain", "junk"):
        with pytest.raises(ValueError, match=f"{name}.ckpt' is no checkpoint to use: .*; give a .ckpt file"):
            read_checkpoint(tmp_path / f"{name}.ckpt")
    with pytest.raises(ValueError, match="it does not exist"):
        read_checkpoint(tmp_path / "nowhere.ckpt")
    assert "executed" not in capsys.readouterr().out
