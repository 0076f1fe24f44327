import math

import pytest
from made_up import CONTROLS, METHODS, made_up_results

from lightning_chex.reporting.dashboard import EVALUATION_COLUMNS, evaluation_tables
from lightning_chex.reporting.evaluation_text import results_text
from lightning_chex.reporting.results import number


def estimate(value, low, high, n=9, patients=10):
    return {"value": value, "ci_low": low, "ci_high": high, "n": n, "patients": patients}


def results(methods, controls):
    measures = {
        key: {"title": key, "better": better, "group": "", "explanation": ""}
        for key, better in (("iou/otsu", "higher"), ("deletion_auc", "lower"), ("randomization", "lower"))
    }
    return {
        **{"task": "classification", "class_names": ["Mass", "Nodule"], "regions": "boxes", "protocol": {}},
        **{"measures": measures, "methods": methods, "controls": controls, "left_out": {"LRP": "no rule"}},
    }


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
        ["IBA", "0.500*", "0.100"],
        ["GradCAM", "0.200", "-"],
        ["control"],
        ["PriorMap", "0.200", "0.500"],
        ["RandomMap", "-0.100", "0.500"],
    ]
    assert text.splitlines()[-3:] == [
        "n = 8 to 9; IoU by the rule: Otsu; (-) lower is better",
        "* better than every control, 95 % intervals of 10 patients or more not overlapping",
        "left out: LRP: no rule",
    ]
    assert text.isascii()


def test_a_full_evaluation_fits_a_screen():
    lines = results_text(made_up_results("classes")).splitlines()
    assert [line.split()[0] for line in lines[:12]] == ["method", *METHODS, "control", *CONTROLS]
    assert len(lines) <= 16 and max(map(len, lines)) <= 130


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
    rows = [row for _, rows in evaluation_tables(made).values() for row in rows if row[4] == "all"]
    names = [*made["methods"], *made["controls"]]
    assert sorted((row[0], row[2]) for row in rows) == sorted((name, key) for name in names for key in made["measures"])
    made["measures"]["novel"] = {"title": "novel", "better": None, "group": "", "explanation": ""}
    made["methods"]["LRP"]["novel"] = estimate(0.5, None, None)
    assert len(evaluation_tables(made)["further"][1]) == 1


def test_numbers_for_people():
    assert [number(v) for v in (0.07541, -0.5, 0.0, -0.0001, 12.345, 1234.5, None, math.nan, math.inf)] == [
        *("0.075", "−0.500", "0.000", "0.000", "12.35", "1,234", "–", "–", "–")
    ]
