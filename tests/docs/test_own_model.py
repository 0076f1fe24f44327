"""The model of docs/how_to/own_model.md, as printed there, through every command."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from lightning_chex.cli.main import main
from lightning_chex.data import PATHOLOGIES, SyntheticDataModule
from lightning_chex.maps import read_index, read_saliency

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "own_model.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.filterwarnings("ignore")

DATA = [
    "--data=SyntheticDataModule", "--data.size=64", "--data.batch_size=4", "--data.num_train=16", "--data.num_val=16",
    "--data.num_test=20", "--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.logger=false",
]  # fmt: skip
QUICK = [f"--settings.{name}" for name in (
    "sensitivity_sizes=3", "sensitivity_masks=4", "resamples=100", "step=256", "statistics_images=12",
    "perturbation_images=2", "randomization_images=2", "tuning_images=6",
)]  # fmt: skip


def test_a_task_of_twenty_lines_goes_through_every_command(tmp_path, monkeypatch, capsys):
    page = PAGE.partition("## A model for every command")[2]
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    body = source.split("class MyTask")[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(source)
    (configured,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    Path("mine.yaml").write_text(configured.replace("{layer: layer2}", "{layer: layer2, steps: 2}"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    common = ["--config=mine.yaml", *DATA]

    main(["fit", *common])
    assert "IoU with the marked regions" in capsys.readouterr().out
    (checkpoint,) = Path().rglob("best.ckpt")
    trained = [*common, f"--ckpt_path={checkpoint}"]
    main(["inspect", *DATA[:6], "--output_dir=seen"])
    assert list(Path("seen").iterdir())
    main(["validate", *trained])
    assert "IoU with the marked regions" in capsys.readouterr().out
    main(["test", *trained])
    assert "IoU with the marked regions" in capsys.readouterr().out
    main(["predict", *trained])
    (predictions,) = Path().rglob("predictions.csv")
    with predictions.open() as file:
        assert len(list(csv.DictReader(file))) == 20
    main(["explain", *trained, "--output_dir=maps"])
    rows = read_index(Path("maps"))
    data = SyntheticDataModule(size=64, batch_size=4, num_train=16, num_val=16, num_test=20)
    data.setup("test")
    assert len(rows) == int(data.dataset("test").labels.sum())
    assert read_saliency(Path("maps"), rows[0]).shape == (64, 64)
    main(["evaluate", *trained, "--methods=[IBA,GradCAM,Gradient]", "--output_dir=out", *QUICK])
    results = json.loads(Path("out/results.json").read_text())
    assert {"IBA", "Gradient"} <= results["methods"].keys() and Path("out/report.html").is_file()

    from mine import MyTask

    network = MyTask.load_from_checkpoint(checkpoint, weights_only=True).model.eval()
    with torch.no_grad(), predictions.open() as file:
        first = next(iter(csv.DictReader(file)))
        wanted = network(data.dataset("test")[0]["image"][None]).sigmoid()[0]
    assert [float(first[name]) for name in PATHOLOGIES] == pytest.approx(wanted.tolist(), abs=1e-4)
