"""Every file in configs/attributor is a method the command line can build."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from lightning_chex import attribution
from lightning_chex.attribution import (
    IBA,
    OBJECTIVES,
    Attributor,
    BottleneckSettings,
    InverseIBA,
    MultiLayerIBA,
    PriorMap,
)
from lightning_chex.explanations import IBACallback

FILES = sorted((Path(__file__).parents[2] / "configs" / "attributor").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_methods_file_is_built_as_the_callbacks_attributor(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PriorMap(torch.ones(2, 4, 4)).save("prior_map.safetensors")
    parser = ArgumentParser()
    parser.add_class_arguments(IBACallback, "callback")
    settings = yaml.safe_load(path.read_text())
    built = parser.instantiate_classes(parser.parse_object({"callback": {"attributor": settings}}))
    method = built.callback.attributor
    assert isinstance(method, Attributor)
    assert type(method) is getattr(attribution, settings["class_path"].rsplit(".", 1)[1])
    for name, value in settings.get("init_args", {}).items():
        if name in ("layer", "beta", "sign", "steps", "seed"):
            assert getattr(method, name, value) == value


def test_the_family_takes_every_argument_of_iba_though_it_repeats_none(capsys):
    arguments = {"beta", "batch_size", "statistics_per"} | {field.name for field in fields(BottleneckSettings)}
    changed = {"steps": 3, "lr": 0.5, "noise_samples": 4, "objective": "deviation", "seed": 7, "memory": 2.0}
    for family, own in ((IBA, "layer"), (InverseIBA, "layer"), (MultiLayerIBA, "layers")):
        parser = ArgumentParser()
        parser.add_subclass_arguments(Attributor, "method")
        with pytest.raises(SystemExit):
            parser.parse_args([f"--method.help=lightning_chex.attribution.{family.__name__}"])
        told = capsys.readouterr().out
        assert all(f"--method.{name} " in told for name in {*arguments, own}), told
        settings = {"class_path": f"lightning_chex.attribution.{family.__name__}", "init_args": changed}
        built = parser.instantiate_classes(parser.parse_object({"method": settings})).method
        for member in built.members:
            assert {name: getattr(member.settings, name) for name in changed} == changed
            assert member.objective is OBJECTIVES["deviation"]
            assert member.beta == (30 if family is InverseIBA else 300)


def test_every_method_has_a_file():
    named = {yaml.safe_load(path.read_text())["class_path"].rsplit(".", 1)[1] for path in FILES}
    methods = {
        name
        for name in attribution.__all__
        if isinstance(getattr(attribution, name), type) and issubclass(getattr(attribution, name), Attributor)
    }
    assert named == methods - {"Attributor", "FittedAttributor", "LayeredAttributor"}
