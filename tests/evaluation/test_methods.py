"""The line-up is what the files in configs/attributor say, and what does not suit a network is told."""

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from lightning_chex.attribution import Attributor, GradCAM
from lightning_chex.evaluation import choose_methods, line_up
from lightning_chex.maps import describe

FILES = Path(__file__).parents[2] / "configs" / "attributor"
FILE_OF = {
    "IBA": "iba",
    "InverseIBA": "inverse_iba",
    "MultiLayerIBA": "multi_layer_iba",
    "GradCAM": "grad_cam",
    "IntegratedGradients": "integrated_gradients",
    "Gradient": "gradient",
    "LRP": "lrp",
    "RegressionIBA_DV": "regression_iba_deviation",
    "RegressionIBA_MSE": "regression_iba_mse",
    "RegressionIBA_RM": "regression_iba_rm",
    "RegressionInverseIBA": "regression_inverse_iba",
}
LAYER = "features.denseblock3"


def rounded(settings):
    if isinstance(settings, float):
        return round(settings, 6)
    if isinstance(settings, list):
        return [rounded(value) for value in settings]
    return {key: rounded(value) for key, value in settings.items()} if isinstance(settings, dict) else settings


@pytest.mark.parametrize("score", [False, True])
def test_the_line_up_is_what_the_files_say(score):
    for name, method in line_up(LAYER, score).items():
        if name == "MultiLayerIBA" and score:
            continue  # the file is for classes
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(Attributor, "method")
        settings = yaml.safe_load((FILES / f"{FILE_OF[name]}.yaml").read_text())
        built = parser.instantiate_classes(parser.parse_object({"method": settings})).method
        assert rounded(describe(built)) == rounded(describe(method)), name


def test_a_description_holds_every_setting_and_nothing_learnt():
    settings = describe(line_up(LAYER, False)["IBA"])
    assert settings == {
        "class": "IBA", "layer": LAYER, "beta": 10.0, "steps": 15, "lr": 2.0, "noise_samples": 2,
        "lr_schedule": "linear", "adam_betas": [0.5, 0.9], "antithetic": True,
        "objective": "binary_cross_entropy", "blur_sigma": 1.0, "initial_alpha": 2.0, "bfloat16": False, "seed": 0,
        "statistics_per": "neuron", "update": "adam",
    }  # fmt: skip


def test_grad_cam_takes_the_last_feature_map_of_another_network():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)
    ).eval()
    methods, left_out = choose_methods(None, "1", model, torch.zeros(1, 3, 16, 16), False, 0)
    assert isinstance(methods["GradCAM"], GradCAM) and methods["GradCAM"].layer == "2"
    assert list(left_out) == ["MultiLayerIBA"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("class_path: lightning_chex.attribution.IBA\ninit_args: {layer: nowhere}", "layer='nowhere'"),
        ("class_path: lightning_chex.attribution.IBA\ninit_args: {betta: 3}", "betta"),
        ("class_path: torch.nn.Linear", "cannot be built"),
        ("[not, a, method]", "cannot be built"),
        ("a: [", "cannot be read"),
        (
            "class_path: lightning_chex.attribution.IBA\ninit_args: {layer: '0', objective: deviation}",
            "explains a score",
        ),
    ],
)
def test_a_bad_file_is_told(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match="mine") as error:
        choose_methods([str(path)], "0", model, torch.zeros(1, 3, 16, 16), False, 0)
    assert words in str(error.value)


def test_an_empty_list_of_methods_is_named():
    with pytest.raises(ValueError, match=r"methods=\[\] is empty: choose from IBA, .*leave it out"):
        choose_methods([], LAYER, nn.Identity(), torch.zeros(1, 3, 32, 32), False, 0)
