"""The best methods of a measure, and the methods that are significantly better than controls."""

import pytest

from lightning_chex.report import Estimate, Measure, Results, Summary
from lightning_chex.report.comparison import best_methods, reason_not_comparable, significantly_better_than
from lightning_chex.report.curves import iou_curves


def results(values: dict[str, float], control: float, better: str | None = "higher", patients: int = 40) -> Results:
    """Methods with these values beside one control; intervals of differences are 0.1 wide on each side."""
    differences = {}
    for name, value in values.items():
        gap = value - control
        differences[name, "Control"] = Summary(Estimate(gap, gap - 0.1, gap + 0.1, n=80, patients=patients))
    summaries = {}
    for name, value in {**values, "Control": control}.items():
        summaries[name] = {"road": Summary(Estimate(value, value, value, n=80, patients=patients))}
    return Results(
        task="regression",
        class_names=[],
        regions=None,
        measures={"road": Measure("ROAD", better, "perturbation", "")},
        methods={name: summaries[name] for name in values},
        controls={"Control": summaries["Control"]},
        differences={"road": differences},
        left_out={},
        protocol={},
    )


@pytest.mark.parametrize(
    ("values", "control", "better", "expected"),
    [
        ({"A": 0.9, "B": 0.7}, 0.5, "higher", ({"A"}, True)),
        ({"A": 0.2, "B": 0.7}, 0.5, "lower", ({"A"}, True)),
        ({"A": 0.55, "B": 0.5}, 0.5, "higher", ({"A"}, False)),
        ({"A": 0.9, "B": 0.9}, 0.5, "higher", ({"A", "B"}, True)),
        ({"A": 0.5, "B": 0.5}, 0.5, "higher", (set(), False)),
        ({"A": 0.9}, 0.5, None, (set(), False)),
    ],
)
def test_best_methods_and_whether_they_beat_the_controls(values, control, better, expected):
    assert best_methods(results(values, control, better), "road") == expected


def test_few_patients_leave_no_method_best():
    few = results({"A": 0.9}, 0.1, patients=1)
    assert reason_not_comparable(few, "road") == "1 patient, fewer than 30"
    assert best_methods(few, "road") == (frozenset(), False)
    assert significantly_better_than(few, "A", "road", ["Control"]) == []


def test_a_difference_is_read_in_both_directions():
    read = results({"A": 0.9}, 0.5)
    assert read.difference("A", "Control", "road").value == pytest.approx(0.4)
    assert read.difference("Control", "A", "road").value == pytest.approx(-0.4)


def test_unknown_fields_of_a_measure_are_ignored():
    content = Measure("ROAD", "higher", "perturbation", "").to_json() | {"unit": ""}
    assert Measure.from_json(content) == Measure("ROAD", "higher", "perturbation", "")


def test_iou_curves_leave_out_steps_without_a_value():
    history = [{"step": 1, "iba_iou": 0.1}, {"step": 2}, {"step": 3, "iba_iou": 0.3, "iba_iou_random": 0.05}]
    (axis,) = iou_curves(history, ["iba"], "strongest 5 %").axes
    assert {line.get_label(): line.get_xdata().tolist() for line in axis.lines} == {"iba": [1, 3], "a random map": [3]}
