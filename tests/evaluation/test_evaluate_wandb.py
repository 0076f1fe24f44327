"""What an offline W&B run holds after an evaluation, read back from its file."""

import json
from pathlib import Path

import pytest
import wandb
import wandb_reader
import yaml
from small_evaluations import SETTINGS

from lightning_chex.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_tables_go_to_wandb_without_names_of_images(classifier, place):
    wandb.teardown()  # settings are read anew, whatever ran before in the process
    logger = ["--trainer.logger=WandbLogger", "--trainer.logger.offline=true", "--trainer.default_root_dir=out"]
    arguments = ["--config", classifier.config, "--ckpt_path", classifier.checkpoint, "--output_dir=found"]
    main(["evaluate", *arguments, *SETTINGS, *logger, "--methods=[IBA,Gradient]", "--limit=6"])
    file = wandb_reader.run_file(place / "work" / "out")
    results = json.loads((place / "work" / "found" / "results.json").read_text())
    tables = {
        path.name.split("_")[0]: json.loads(path.read_text()) for path in (place / "work" / "out").rglob("*.table.json")
    }
    rows = {tuple(row[:5]): row for table in tables.values() for row in table["data"]}
    for name in ("IBA", "Gradient"):
        for key in ("iou/otsu", "insertion_auc"):
            own = results["methods"][name][key]
            row = rows[name, "method", key, "higher", "all"]
            assert row[5] == pytest.approx(own["value"]) and row[8] == own["n"]
    assert ("RandomMap", "control", "iou/otsu", "higher", "all") in rows
    assert not list((place / "work" / "out").rglob("staging"))  # of artifacts, where copies would lie for good
    content = file.read_bytes() + b"".join(p.read_bytes() for p in (place / "work" / "out").rglob("*.json"))
    assert b"phantom-s0" not in content and str(classifier.folder).encode() not in content
    kept = yaml.safe_load((place / "work" / "found" / "config.yaml").read_text())
    assert kept["limit"] == 6 and kept["data"]["class_path"].endswith("SyntheticDataModule")


def test_several_checkpoints_have_tables_of_their_own_and_one_of_their_differences(classifier, place):
    again = place / "work" / "again.ckpt"
    again.write_bytes(Path(classifier.checkpoint).read_bytes())
    wandb.teardown()  # settings and working folder are those of the first run of a process
    out = place / "work" / "out"
    logger = ["--trainer.logger=WandbLogger", "--trainer.logger.offline=true", f"--trainer.default_root_dir={out}"]
    both = f"{{first: {classifier.checkpoint}, second: {again}}}"
    arguments = ["--config", classifier.config, "--ckpt_path", both, "--output_dir=found"]
    few = ["--methods=[Gradient]", "--limit=2", "--settings.perturbation_images=0", "--settings.randomization_images=0"]
    main(["evaluate", *arguments, *SETTINGS, *logger, *few])
    tables = [json.loads(path.read_text()) for path in out.rglob("*.table.json")]
    (differences,) = [table["data"] for table in tables if table["columns"][1] == "checkpoint"]
    row = next(row for row in differences if row[0] == "Gradient" and row[3] == "iou/otsu")
    assert row[1:3] == ["second", "first"] and row[5] == 0  # the same weights
    means = [table["data"] for table in tables if table["columns"][1] == "kind"]
    localization = [rows for rows in means if any(row[2] == "iou/otsu" for row in rows)]
    assert len(localization) == 2
    file = wandb_reader.run_file(out)
    assert b"again.ckpt" not in file.read_bytes() and str(classifier.folder).encode() not in file.read_bytes()
