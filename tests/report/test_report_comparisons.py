"""What the report says of methods compared with each other, and how firmly."""

from dataclasses import replace

import pytest
from made_up import CONTROLS, METHODS, made_up_curves, made_up_results
from page_reader import Node, rows
from test_evaluation_report import one, outcome, page_of, section, tables

from lightning_chex.report import Curve, format_number


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Node:
    return page_of(tmp_path_factory.mktemp("page"), made_up_results("classes"))


def test_overlapping_intervals_do_not_hide_a_paired_difference_and_clear_ones_do_not_make_one(tmp_path):
    results = one("road", {"IBA": (0.5, 0.2, 0.8), "LRP": (0.4, 0.1, 0.7), "PriorMap": (0.3, 0.0, 0.6)})
    for pair, ends in zip(results["differences"]["road"], [(0.05, 0.15), (0.1, 0.3), (-0.1, 0.3)], strict=True):
        pair["ci_low"], pair["ci_high"] = ends
    page = page_of(tmp_path, results)
    (table,) = tables(page)
    assert [each.text for each in table.all("b")] == ["0.500"]
    assert [each.text for each in section(page, "differences").all("b")][1:] == ["0.200", "0.100", "−0.100"]
    apart = one("road", {"IBA": (0.5, 0.45, 0.55), "PriorMap": (0.3, 0.25, 0.35)})
    apart["differences"]["road"][0]["ci_low"] = -0.01
    (table,) = tables(page_of(tmp_path, apart))
    assert not list(table.all("b")) and rows(table)["IBA"][0].startswith("0.500†")


def test_each_method_is_compared_with_every_other_and_every_control(page):
    results = made_up_results("classes")
    iou, *others = section(page, "differences").all("table")
    assert len(others) == 5  # insertion, deletion, ROAD, Sensitivity-N, randomisation
    found = rows(iou)
    assert found["method"] == [f"less {name}n = 240" for name in [*CONTROLS, *METHODS]]
    assert list(found)[1:] == METHODS
    value = {**results["controls"], **results["methods"]}
    for row in METHODS:
        for name, cell in zip([*CONTROLS, *METHODS], found[row], strict=True):
            less = value[row]["iou/fixed_share"]["value"] - value[name]["iou/fixed_share"]["value"]
            assert cell.startswith("–" if row == name else format_number(less))
    # the other way round, with the ends changed about
    own = [cell.replace("−", "-") for cell in (found["InverseIBA"][3], found["IBA"][4])]
    assert own[0].startswith("-0.0") and own[1].startswith("0.0") and " to -" in own[0]
    note = section(page, "differences").text
    assert "The differences rest on 120 patients." in note and "not corrected for their number" in note


def test_few_patients_are_the_reason_why_nothing_is_marked(tmp_path):
    page = page_of(tmp_path, made_up_results("classes", n=58))  # 29 patients
    assert not [b for table in page.all("table") for b in table.all("b")]
    assert not [table for table in page.all("table") if "†" in table.text]
    reason = "29 patients, fewer than 30"
    assert f"Nothing is set bold: {reason}." in section(page, "differences").text
    assert f"Not marked: {reason}." in section(page, "iou").text
    assert all(reason in answer for answer in outcome(page)[:-1])
    assert "do better" not in " ".join(outcome(page)) and "does better" not in " ".join(outcome(page))


def test_every_mean_of_another_number_says_its_own(tmp_path):
    """As with ``--limit``: perturbation of two images beside IoU of 29."""
    results = made_up_results("classes", n=58)
    for part in ("methods", "controls"):
        for measures in results[part].values():
            for key in ("insertion_auc", "deletion_auc"):
                measures[key]["n"] = 2
    curves = [
        Curve(c.method, c.name, c.x, [replace(mean, n=2) for mean in c.means]) for c in made_up_curves(results, 5)
    ]
    page = page_of(tmp_path, results, curves)
    assert "(n = 58)" in outcome(page)[0] and all("(n = 2)" in answer for answer in outcome(page)[1:3])
    table = rows(next(section(page, "perturbation").all("table")))
    headings = [each for each in table["method"] if "AUC" in each or "ROAD" in each]
    assert [heading.partition("n = ")[2] for heading in headings] == ["2", "2", "58", "58", "58"]
    captions = [each.text for each in page.all("figcaption") if "band" in each.text]
    assert captions and all("n = 2" in caption for caption in captions)
    assert "every cell that has another one" in " ".join(next(page.all("header")).text.split())


def test_the_words_of_the_page_are_explained(page):
    header = " ".join(next(page.all("header")).text.split())
    for words in ("30 patients or more", "studentised", "one setting of the method", "configs/paper"):
        assert words in header


def test_maps_that_did_not_converge_are_shown_by_method(page):
    table = rows(next(section(page, "convergence").all("table")))
    assert table["method"] == ["median changen = 240", "share of maps not convergedn = 240"]
    assert [cell.removesuffix("no interval") for cell in table["InverseIBA"]] == ["0.090", "0.200"]
    assert table["GradCAM"] == table["RandomMap"] == ["–", "–"]
