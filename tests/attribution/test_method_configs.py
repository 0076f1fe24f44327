"""Every file in configs/attributor is a method the command line can build."""

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from lightning_chex import attribution
from lightning_chex.attribution import Attributor, PriorMap
from lightning_chex.callbacks import IBACallback

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


def test_every_method_has_a_file():
    named = {yaml.safe_load(path.read_text())["class_path"].rsplit(".", 1)[1] for path in FILES}
    methods = {
        name
        for name in attribution.__all__
        if isinstance(getattr(attribution, name), type) and issubclass(getattr(attribution, name), Attributor)
    }
    assert named == methods - {"Attributor"}
