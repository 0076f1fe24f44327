"""The evaluation on real X-rays: what judges the maps comes from real boxes, scores and masks."""

import csv
import json

import pytest
import torch
import yaml
from small_evaluations import CONFIG, SETTINGS

from lightning_chex.cli.main import main
from lightning_chex.data import CohenDataModule, LungDataModule, collate, lung_zones
from lightning_chex.maps import cases_of

pytestmark = pytest.mark.filterwarnings("ignore")


def trained_on(folder, root, module: str, task: str, objective: str, **data) -> list[str]:
    """Options of ``evaluate`` for a network that has seen a few batches of real X-rays."""
    config = json.loads(json.dumps(CONFIG))
    config["trainer"] |= {"limit_train_batches": 2, "default_root_dir": str(folder / "run")}
    config["trainer"]["callbacks"][0]["init_args"]["attributor"]["init_args"]["objective"] = objective
    config["model"]["class_path"] = task
    config["data"] = {
        "class_path": module, "init_args": {"root": str(root), "size": 64, "batch_size": 8, "augment": False, **data}
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(path)])
    (checkpoint,) = (folder / "run").rglob("*.ckpt")
    return ["--config", str(path), "--ckpt_path", str(checkpoint), "--output_dir", str(folder / "out"), *SETTINGS]


def test_nih_boxes_of_the_reporting_half_judge_the_maps(tmp_path, chex_data):
    root = chex_data / "nih_chestxray8"
    options = trained_on(tmp_path, root, "NIHDataModule", "ClassificationTask", "binary_cross_entropy")
    main(["evaluate", *options, "--methods=[IBA,Gradient]", "--limit=12"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["protocol"]["data"]["images"] == 12 and len(results["controls"]) == 3
    # from the publisher's own list: area of the boxes in the 1024 x 1024 frame
    with (root / "BBox_List_2017.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    area = {}
    for name, finding, _, _, width, height in (row[:6] for row in rows):
        key = name.removesuffix(".png"), finding.replace("Infiltrate", "Infiltration")
        area.setdefault(key, []).append(float(width) * float(height) / 1024**2)
    with (tmp_path / "out" / "per_image.csv").open() as file:
        found = [row for row in csv.DictReader(file) if row["method"] == "EveryPixel"]
    single = [row for row in found if len(area[row["image"], row["target"]]) == 1]
    assert len(single) >= 10
    for row in single:
        (share,) = area[row["image"], row["target"]]
        assert float(row["iou/oracle"]) == pytest.approx(share, abs=0.015)  # whole pixels of 64
    # the floor of all 984 boxes is .0754; a half of them is not far from it
    rule = results["protocol"]["threshold_rule"]
    assert "tuning regions" in rule and 5 < float(rule.split("strongest ")[1].split("%")[0]) < 10


def test_table_2s_regions_are_zones_of_real_masks(chex_data):
    data = CohenDataModule(str(chex_data / "brixia_cohen"), size=128, target="detectors")
    dataset = data.explained_dataset("test")
    batch = collate([dataset[i] for i in range(len(dataset))])
    cases = cases_of(batch, torch.zeros(len(dataset), 3), data.class_names, "zones")
    judged = cases.regions.flatten(1).any(1)
    assert len(cases) > 30 and judged.float().mean() > 0.5  # 90 of 120 images have a mask
    lungs = batch["lung_mask"].any(1)[cases.rows]
    assert not (cases.regions & ~lungs).any()
    # every zone of an outlined image belongs to exactly one of its detectors
    for row in range(len(dataset)):
        own = [i for i in range(len(cases)) if int(cases.rows[i]) == row]
        zones = lung_zones(batch["lung_mask"][row])
        assert torch.equal(cases.regions[own].sum(0), zones.sum(0))


def test_zones_of_two_peoples_outlines_agree(chex_data):
    """The same X-rays were outlined for two collections: zones are a matter of the lungs, not of who drew them."""
    scored = CohenDataModule(str(chex_data / "brixia_cohen"), lung_masks=True, size=128)
    lesions = LungDataModule(str(chex_data / "covid_lesions"), layout="lesions", size=128, allow_missing=True)
    masks = []
    for data in (scored, lesions):
        data.look()
        masks.append(
            {name: part[i]["lung_mask"] for part in data.parts().values() for i, name in enumerate(part.image_ids)}
        )
    agreement = []
    for name in masks[0].keys() & masks[1].keys():
        first, second = masks[0][name], masks[1][name]
        if first.flatten(1).any(1).all() and second.flatten(1).any(1).all():
            pairs = zip(lung_zones(first), lung_zones(second), strict=True)
            agreement.append([float((a & b).sum() / (a | b).sum()) for a, b in pairs])
    assert len(agreement) == 30
    assert torch.tensor(agreement).mean(0).min() > 0.75


def test_severity_maps_meet_real_zone_scores(tmp_path, chex_data):
    root = chex_data / "brixia_cohen"
    options = trained_on(tmp_path, root, "CohenDataModule", "RegressionTask", "deviation")
    main(["evaluate", *options, "--methods=[RegressionIBA_DV]", "--limit=12"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["regions"] == "zones" and set(results["controls"]) >= {"LungField", "PriorMap"}
    field = results["controls"]["LungField"]["severity_correlation"]
    assert field["n"] < results["protocol"]["data"]["targets"]  # some have no outlined lungs
    assert field["value"] > 0.5 > abs(results["controls"]["RandomMap"]["severity_correlation"]["value"])
