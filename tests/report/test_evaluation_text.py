import math

import pytest
from made_up import CONTROLS, METHODS, made_up_differences, made_up_results

from lightning_chex.evaluation import MEASURES
from lightning_chex.report import (
    DIFFERENCE_COLUMNS,
    EVALUATION_COLUMNS,
    Results,
    evaluation_tables,
    format_number,
    results_text,
)


def estimate(value, low, high, n=9, patients=30):
    return {"value": value, "ci_low": low, "ci_high": high, "n": n, "patients": patients}


def results(methods, controls):
    measures = {
        key: MEASURES[key].to_json() | {"title": key, "better": better}
        for key, better in (("iou/otsu", "higher"), ("deletion_auc", "lower"), ("randomization", "lower"))
    }
    return Results.from_json(
        {
            **{"task": "classification", "class_names": ["Mass", "Nodule"], "regions": "boxes", "protocol": {}},
            **{"measures": measures, "methods": methods, "controls": controls, "left_out": {"LRP": "no rule"}},
            "differences": made_up_differences(measures, methods, controls),
        }
    )


def test_a_line_a_method_with_stars_where_it_is_clear_of_every_control():
    text = results_text(
        results(
            {
                "IBA": {"iou/otsu": estimate(0.5, 0.4, 0.6), "deletion_auc": estimate(0.1, 0.05, 0.2)},
                "GradCAM": {"iou/otsu": estimate(0.2, 0.15, 0.6), "deletion_auc": estimate(None, math.nan, None, 0)},
            },
            {
                "PriorMap": {"iou/otsu": estimate(0.2, 0.1, 0.3, 8), "deletion_auc": estimate(0.5, 0.4, 0.6)},
                "RandomMap": {"iou/otsu": estimate(-0.1, -0.2, 0.0), "deletion_auc": estimate(0.5, 0.19, 0.6)},
            },
        )
    )
    assert [line.split() for line in text.splitlines()[:-3]] == [
        ["method", "IoU", "deletion", "(-)"],
        ["n", "9", "9"],
        ["IBA", "0.500*", "0.100"],
        ["GradCAM", "0.200", "-"],
        ["control"],
        ["PriorMap", "0.200", "(8)", "0.500"],
        ["RandomMap", "-0.100", "0.500"],
    ]
    assert text.splitlines()[-3:] == [
        "IoU by the rule: Otsu; (-) lower is better; n: maps behind a column's means, beside a value: behind that one",
        "* better than every control: 95 % interval of the paired difference clear of 0, 30 patients or more",
        "left out: LRP: no rule",
    ]
    assert text.isascii()


def test_figures_of_two_images_do_not_pass_for_those_of_the_others():
    """As with ``--limit``: IoU of 29 targets of 22 patients, deletion of 2."""
    methods = {"IBA": {"iou/otsu": estimate(0.5, 0.4, 0.6, 29, 22), "deletion_auc": estimate(0.1, 0.05, 0.2, 2, 2)}}
    controls = {
        "PriorMap": {"iou/otsu": estimate(0.2, 0.1, 0.3, 29, 22), "deletion_auc": estimate(0.5, 0.4, 0.6, 2, 2)}
    }
    lines = results_text(results(methods, controls)).splitlines()
    assert lines[1].split() == ["n", "29", "2"] and "*" not in "".join(lines)
    assert "not marked: 22 patients, fewer than 30; 2 patients, fewer than 30" in lines


def test_maps_that_have_not_converged_are_told():
    made = Results.from_json(made_up_results("classes", methods=["IBA", "InverseIBA", "GradCAM"]))
    assert "maps whose optimisation has not converged: InverseIBA 20%" in results_text(made).splitlines()


def test_a_full_evaluation_fits_a_screen():
    lines = results_text(Results.from_json(made_up_results("classes"))).splitlines()
    assert [line.split()[0] for line in lines[:13]] == ["method", "n", *METHODS, "control", *CONTROLS]
    assert len(lines) <= 17 and max(map(len, lines)) <= 130


def test_nothing_measured_is_said():
    assert results_text(results({"IBA": {}}, {})) == "Nothing was measured."


def test_tables_for_the_dashboard_hold_every_mean_with_its_interval():
    nested = {**estimate(0.5, 0.4, 0.6), "class_mean": estimate(0.3, 0.2, 0.4, 2)}
    nested["per_class"] = {"Mass": estimate(0.1, None, math.nan, 1)}
    tables = evaluation_tables(
        results({"IBA": {"iou/otsu": nested}}, {"RandomMap": {"deletion_auc": estimate(0.7, 0.6, 0.8)}})
    )
    assert tables == {
        "localization": (
            EVALUATION_COLUMNS,
            [
                ["IBA", "method", "iou/otsu", "higher", "all", 0.5, 0.4, 0.6, 9],
                ["IBA", "method", "iou/otsu", "higher", "classes", 0.3, 0.2, 0.4, 2],
                ["IBA", "method", "iou/otsu", "higher", "Mass", 0.1, None, None, 1],
            ],
        ),
        "perturbation": (
            EVALUATION_COLUMNS,
            [["RandomMap", "control", "deletion_auc", "lower", "all", 0.7, 0.6, 0.8, 9]],
        ),
    }


@pytest.mark.parametrize("kind", ["classes", "detectors", "regression"])
def test_no_measure_is_lost_or_told_twice(kind):
    made = made_up_results(kind)
    rows = [row for _, rows in evaluation_tables(Results.from_json(made)).values() for row in rows if row[4] == "all"]
    known = [(name, key) for part in ("methods", "controls") for name, own in made[part].items() for key in own]
    assert sorted((row[0], row[2]) for row in rows) == sorted(known)
    made["measures"]["novel"] = {"title": "novel", "better": None, "group": "", "explanation": ""}
    made["methods"]["LRP"]["novel"] = estimate(0.5, None, None)
    before = len(evaluation_tables(Results.from_json(made_up_results(kind)))["further"][1])
    assert len(evaluation_tables(Results.from_json(made))["further"][1]) == before + 1


def test_the_dashboard_has_a_row_for_every_paired_difference():
    made = made_up_results("classes", methods=["IBA", "LRP"])
    columns, rows = evaluation_tables(Results.from_json(made))["differences"]
    assert columns == DIFFERENCE_COLUMNS
    pairs = [("IBA", "LRP"), *((name, control) for name in ("IBA", "LRP") for control in CONTROLS)]
    compared = [key for key, measure in made["measures"].items() if measure["better"]]
    assert sorted((row[0], row[1], row[2]) for row in rows) == sorted(
        (*pair, key) for pair in pairs for key in compared
    )
    (own,) = [row for row in rows if row[:3] == ["IBA", "PriorMap", "road"]]
    values = [made[part][name]["road"]["value"] for part, name in (("methods", "IBA"), ("controls", "PriorMap"))]
    assert own[3] == "higher" and own[4] == pytest.approx(values[0] - values[1]) and own[7:] == [240, 120]


def test_numbers_for_people():
    assert [format_number(v) for v in (0.07541, -0.5, 0.0, -0.0001, 12.345, 1234.5, None, math.nan, math.inf)] == [
        *("0.075", "−0.500", "0.000", "0.000", "12.35", "1,234", "–", "–", "–")
    ]
