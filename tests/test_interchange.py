"""Every data module under every configuration that makes sense of it, through ``main([...])``; one error elsewhere."""

import csv

import pytest
from commands import CONFIGS, TINY, written
from fakes import write_cohen, write_nih
from fakes_brixia import write_brixia

from lightning_chex.cli.main import main

PHANTOM = ["--data=SyntheticDataModule", "--data.num_train=6", "--data.num_val=4", "--data.num_test=4"]
DATA = {
    "phantom": [*PHANTOM, "--data.target=pathologies"],
    "phantom severity": [*PHANTOM, "--data.target=severity"],
    "phantom detectors": [*PHANTOM, "--data.target=detectors"],
    "nih": ["--data=NIHDataModule", "--data.root={}/nih"],
    "cohen severity": ["--data=CohenDataModule", "--data.root={}/cohen", "--data.target=severity"],
    "cohen zones": ["--data=CohenDataModule", "--data.root={}/cohen", "--data.target=zones", "--data.rater=mean"],
    "cohen detectors": ["--data=CohenDataModule", "--data.root={}/cohen", "--data.target=detectors"],
    "brixia severity": ["--data=BrixIADataModule", "--data.root={}/brixia", "--data.target=severity"],
    "brixia zones": ["--data=BrixIADataModule", "--data.root={}/brixia", "--data.target=zones"],
    "brixia detectors": ["--data=BrixIADataModule", "--data.root={}/brixia", "--data.target=detectors"],
}
CLASSES = [name for name in DATA if name in ("phantom", "nih") or "detectors" in name]
SCORES = [name for name in DATA if name not in CLASSES]
CLASSIFICATIONS = ["nih_classification", "cohen_detectors", "brixia_detectors"]
REGRESSIONS = ["cohen_regression", "brixia_regression"]
QUICK = [
    *TINY,
    "--data.size=32",
    "--data.augment=false",
    "--model.backbone=test_resnet",  # timm's smallest
    "--trainer.limit_train_batches=1",
    "--trainer.logger=false",
]
ALONE = ["--trainer.callbacks=null"]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_nih(folder / "nih", size=32)
    write_cohen(folder / "cohen", size=32)
    write_brixia(folder / "brixia", size=32)
    return folder


def arguments(config: str, data: str, sources) -> list[str]:
    """Options that put some data under a configuration made for others."""
    chosen = [option.format(sources) for option in DATA[data]]
    loss = ["--model.loss=bce"] if config in CLASSIFICATIONS else []  # a handful of images may lack a class
    return ["--config", str(CONFIGS / f"{config}.yaml"), *chosen, *QUICK, *loss]


@pytest.mark.parametrize(
    ("config", "data"),
    [(config, data) for config in CLASSIFICATIONS for data in CLASSES]
    + [(config, data) for config in REGRESSIONS for data in SCORES],
)
def test_data_are_interchangeable_under_a_configuration(place, sources, config, data):
    main(["fit", *arguments(config, data, sources), *ALONE, "--trainer.default_root_dir=out"])
    assert list((place / "work" / "out").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("config", "data", "options", "words"),
    [
        *(("cohen_detectors", data, ALONE, "class_names is empty: a classification needs") for data in SCORES),
        *(("cohen_regression", data, ALONE, "not a score: set data.target: severity") for data in CLASSES),
        *(
            ("brixia_regression", data, [], "predicts the 6 scores A, B, C, D, E, F, but maps explain one: set data.t")
            for data in ("cohen zones", "brixia zones")
        ),
    ],
)
def test_what_makes_no_sense_is_one_error(place, sources, capsys, config, data, options, words):
    layer = [] if options else ["--model.backbone=densenet121"]  # the layer explained is one of it
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments(config, data, sources), *layer, *options])
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and words in lines[0]
    assert not [name for name in written(place / "work") if not name.endswith("config.yaml")]


def test_predictions_of_six_zones_have_their_names(place, sources):
    main(
        ["predict", *arguments("brixia_regression", "brixia zones", sources), *ALONE, "--trainer.default_root_dir=out"]
    )
    (path,) = (place / "work" / "out").rglob("predictions.csv")
    header, *rows = csv.reader(path.open())
    assert header == ["image_id", *"ABCDEF"] and len(rows) == 3 and all(len(row) == 7 for row in rows)
