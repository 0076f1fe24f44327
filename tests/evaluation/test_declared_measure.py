"""A measure declared in the table is found in every result, without another edit."""

import csv
import json

import pytest
from small_evaluations import SETTINGS, trained

from lightning_chex.cli.main import main
from lightning_chex.evaluation import MEASURES
from lightning_chex.evaluation.measures import ComputedMeasure
from lightning_chex.report import Results, evaluation_tables

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_row_in_the_table_suffices_for_results_terminal_tables_and_page(tmp_path, monkeypatch, capsys):
    declared = ComputedMeasure(
        title="Largest value",
        better="higher",
        group="localization",
        explanation="The greatest value of a map, made up for a test.",
        table="place",
        heading="greatest value",
        terminal="greatest",
        outcome="Greatest value of the map",
        compared=True,
        source="maps",
        function=lambda maps: maps.saliency.float().flatten(1).amax(1),
    )
    monkeypatch.setitem(MEASURES, "largest_value", declared)
    model = trained(tmp_path, "pathologies")
    folder = tmp_path / "evaluated"
    command = ["evaluate", "--config", model.config, "--ckpt_path", model.checkpoint, "--trainer.logger", "false"]
    capsys.readouterr()
    main([*command, f"--output_dir={folder}", *SETTINGS, "--methods=[Gradient]"])
    printed = capsys.readouterr().out

    written = json.loads((folder / "results.json").read_text())
    assert written["measures"]["largest_value"]["title"] == "Largest value"
    # the control that marks every pixel is 1 everywhere
    assert written["controls"]["EveryPixel"]["largest_value"]["value"] == 1.0
    rows = list(csv.DictReader((folder / "per_image.csv").open()))
    gradients = [float(row["largest_value"]) for row in rows if row["method"] == "Gradient"]
    assert written["methods"]["Gradient"]["largest_value"]["value"] == pytest.approx(
        sum(gradients) / len(gradients), rel=1e-4
    )
    assert {(pair["method"], pair["other"]) for pair in written["differences"]["largest_value"]} >= {
        ("Gradient", "EveryPixel")
    }
    assert "greatest" in next(line for line in printed.splitlines() if line.startswith("method"))
    page = (folder / "report.html").read_text()
    for words in ("greatest value<", "made up for a test", "Largest value: the row less the column"):
        assert words in page
    assert "Greatest value of the map" in page
    _, table = evaluation_tables(Results.from_json(written))["localization"]
    assert "largest_value" in {row[2] for row in table}
