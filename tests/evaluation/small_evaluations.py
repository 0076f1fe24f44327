"""Small networks trained on the phantom through the command line, and settings of an evaluation in seconds."""

import copy
from pathlib import Path
from types import SimpleNamespace

import yaml

from lightning_chex.cli.main import main

SETTINGS = [
    "--settings.sensitivity_sizes=3",
    "--settings.sensitivity_masks=4",
    "--settings.resamples=100",
    "--settings.step=256",
    "--settings.statistics_images=12",
    "--settings.perturbation_images=2",
    "--settings.randomization_images=2",
    "--settings.tuning_images=6",
]
"""A whole evaluation in seconds."""

CONFIG = {
    "seed_everything": 0,
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [
            {
                "class_path": "lightning_chex.explanations.IBACallback",
                "init_args": {
                    "attributor": {
                        "class_path": "lightning_chex.attribution.IBA",
                        "init_args": {"layer": "layer2", "steps": 2},
                    },
                    "save_pictures": False,
                },
            }
        ],
    },
    "model": {"class_path": "ClassificationTask", "init_args": {"backbone": "test_resnet", "lr": 0.01}},
    "data": {
        "class_path": "SyntheticDataModule",
        "init_args": {"size": 64, "batch_size": 4, "num_train": 16, "num_val": 16, "num_test": 20, "augment": False},
    },
}

METHODS = {
    "MultiLayerIBA": {
        "class_path": "lightning_chex.attribution.MultiLayerIBA",
        "init_args": {"layers": ["layer1", "layer2"], "steps": 2},
    },
    "Quick": {"class_path": "lightning_chex.attribution.IBA", "init_args": {"layer": "layer2", "steps": 1}},
    "IBA_layer1": {"class_path": "lightning_chex.attribution.IBA", "init_args": {"layer": "layer1", "steps": 1}},
}


def trained(folder: Path, target: str) -> SimpleNamespace:
    """A network that has seen one epoch of the phantom: configuration, checkpoint, files of methods."""
    config = copy.deepcopy(CONFIG)
    config["trainer"]["default_root_dir"] = str(folder / "run")
    config["data"]["init_args"]["target"] = target
    if target == "severity":
        config["model"]["class_path"] = "RegressionTask"
        config["trainer"]["callbacks"][0]["init_args"]["attributor"]["init_args"]["objective"] = "deviation"
    folder.mkdir(exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    files = {}
    for name, method in METHODS.items():
        files[name] = str(folder / f"{name}.yaml")
        Path(files[name]).write_text(yaml.safe_dump(method))
    main(["fit", "--config", str(path)])
    (checkpoint,) = (folder / "run").rglob("*.ckpt")
    return SimpleNamespace(config=str(path), checkpoint=str(checkpoint), files=files, folder=folder)
