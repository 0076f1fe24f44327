"""The page that compares checkpoints, on made-up values: what is called better, what is bold, what is warned of."""

import json
import math
from dataclasses import replace

import pytest
from made_up import made_up_results
from page_reader import read_page

from lightning_chex.evaluation import MEASURES
from lightning_chex.report import CheckpointComparison, Results, Summary, comparison_text, write_comparison
from lightning_chex.report.results import Estimate

PLAIN, WEIGHTED = "plain", "weighted"


def comparison(differences: dict[str, Estimate], key: str = "iou/fixed_share", alone: int = 0) -> CheckpointComparison:
    """Two checkpoints whose own values are the same made-up ones, with these differences by method."""
    results = Results.from_json(made_up_results(n=240, methods=["IBA", "GradCAM", "LRP"]))
    classes = len(results.class_names)
    found = {
        (method, WEIGHTED, PLAIN): Summary(own, own, tuple([own] * classes)) for method, own in differences.items()
    }
    scores = {PLAIN: {"auroc": 0.71234, "ap": 0.3, "auroc/Mass": 0.81234}, WEIGHTED: {"auroc": 0.7, "ap": math.nan}}
    return CheckpointComparison(
        results={PLAIN: results, WEIGHTED: results},
        scores=scores,
        differences={key: found},
        common=240,
        alone={PLAIN: 0, WEIGHTED: alone},
    )


BETTER = Estimate(0.031, 0.011, 0.052, n=240, patients=120)
WORSE = Estimate(-0.041, -0.062, -0.012, n=240, patients=120)
EQUAL = Estimate(0.002, -0.011, 0.013, n=240, patients=120)


@pytest.mark.parametrize(("key", "favours"), [("iou/fixed_share", "IBA"), ("deletion_auc", "GradCAM")])
def test_what_is_clear_of_zero_is_bold_and_said(tmp_path, key, favours):
    found = comparison({"IBA": BETTER, "GradCAM": WORSE, "LRP": EQUAL}, key)
    write_comparison(tmp_path / "comparison.html", found)
    page = read_page(tmp_path / "comparison.html")
    against = "GradCAM" if favours == "IBA" else "IBA"
    said = f"weighted does better than plain by the maps of {favours}; plain does better than weighted by the maps of"
    assert f"{said} {against}; weighted and plain show no sure difference by the maps of LRP." in page.text
    (table,) = [one for one in page.all("section") if one.attributes.get("id") == "measures"]
    bold = {own.text for own in table.all("b")}
    assert {"0.031", "−0.041"} <= bold and "0.002" not in bold
    assert "0.712" in page.text and "weighted less plain" in page.text and "cases differ" not in page.text


def test_few_patients_leave_everything_open(tmp_path):
    few = Estimate(0.2, 0.1, 0.3, n=40, patients=29)
    write_comparison(tmp_path / "comparison.html", comparison({"IBA": few}))
    page = read_page(tmp_path / "comparison.html")
    assert "29 patients, fewer than 30" in page.text and "does better" not in page.text
    assert "0.200" not in {own.text for own in page.all("b")}


def test_auroc_stands_beside_the_iou_of_its_class(tmp_path):
    write_comparison(tmp_path / "comparison.html", comparison({"IBA": BETTER, "GradCAM": WORSE, "LRP": EQUAL}))
    page = read_page(tmp_path / "comparison.html")
    (section,) = [one for one in page.all("section") if one.attributes.get("id") == "classes"]
    (row, *_) = [row for row in section.all("tr") if next(row.all("th")).text == "Mass"]
    cells = [cell.text for cell in row.all("td")]
    assert len(cells) == 5 and cells[2].startswith("0.031") and cells[3:] == ["0.812", "–"]


def test_cases_that_only_one_has_are_said_everywhere(tmp_path):
    found = comparison({"IBA": BETTER}, alone=7)
    write_comparison(tmp_path / "comparison.html", found)
    told = "weighted has 7 cases that other checkpoints lack"
    assert told in read_page(tmp_path / "comparison.html").text and told in comparison_text(found)
    assert told in found.to_json()["warnings"][0] and found.to_json()["checkpoints"][WEIGHTED]["cases"] == 247


def test_the_file_holds_plain_values_and_no_nan():
    written = comparison({"IBA": BETTER}).to_json()
    (own,) = written["differences"]["iou/fixed_share"]
    assert (own["method"], own["checkpoint"], own["other"], own["value"]) == ("IBA", WEIGHTED, PLAIN, 0.031)
    assert own["per_class"]["Mass"]["ci_low"] == 0.011 and own["class_mean"]["n"] == 240
    assert written["checkpoints"][WEIGHTED]["scores"] == {"auroc": 0.7, "ap": None}
    assert written["checkpoints"][PLAIN]["sha256"] == "ab" * 32


def test_the_functions_of_measures_are_not_written():
    found = comparison({"IBA": BETTER})
    results = {name: replace(own, measures=MEASURES) for name, own in found.results.items()}
    written = json.loads(json.dumps(replace(found, results=results).to_json(), allow_nan=False))
    assert written["measures"]["road"]["title"] == MEASURES["road"].title


def test_the_terminal_shows_ascii_alone():
    text = comparison_text(comparison({"IBA": BETTER, "GradCAM": WORSE, "LRP": EQUAL}))
    assert text.isascii() and "0.031 (0.011 to 0.052)" in text and "-0.041 (-0.062 to -0.012)" in text
