import itertools
import math
import re

import numpy as np
import pytest
import torch
from made_up import CONTROLS, METHODS, REGRESSION_METHODS, made_up_results

from lightning_chex.reporting.evaluation import Curve, ExampleRow
from lightning_chex.reporting.report.axes import Scale, scale_of
from lightning_chex.reporting.report.charts import line_chart, scatter
from lightning_chex.reporting.report.examples import colored, examples
from lightning_chex.reporting.report.labels import Box, place_labels
from lightning_chex.reporting.report.outline import outline
from lightning_chex.reporting.report.palette import CONTROL_COLORS, looks
from lightning_chex.reporting.results import Cell, Results


def curve(values, method="IBA", x=None) -> Curve:
    x = list(range(len(values))) if x is None else x
    around = [(None, None) if v is None else (v - 0.1, v + 0.1) for v in values]
    return Curve(method, "insertion", x, values, [a for a, _ in around], [b for _, b in around], [9] * len(x))


def drawn(chart, css):
    return [each for each in chart.iter() if css in (each.get("class") or "").split()]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


def test_a_curve_goes_through_its_values():
    chart = line_chart([curve([0.0, 1.0, 0.5])], looks(["IBA"], []), "t", "x", "y")
    (line,) = drawn(chart, "curve")
    (x0, y0), (x1, y1), (x2, y2) = points(line.get("d"))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 < y2 < y0 and (y0 - y1) == pytest.approx(2 * (y2 - y1), abs=0.2)  # up is small
    (band,) = drawn(chart, "band")
    outline_ = points(band.get("d"))
    assert len(outline_) == 6
    # from the lower end of the first point to its upper one: a fifth of the way from 0 to 1
    assert outline_[0][1] - outline_[-1][1] == pytest.approx(0.2 * (y0 - y1), abs=0.2)


@pytest.mark.parametrize("hole", [None, math.nan])
def test_a_curve_breaks_where_a_value_is_missing(hole):
    holed = Curve("IBA", "insertion", [0, 1, 2, 3], [0.1, hole, 0.2, 0.3], [hole] * 4, [hole] * 4, [9] * 4)
    (line,) = drawn(line_chart([holed], looks(["IBA"], []), "t", "x", "y"), "curve")
    assert [len(points(run)) for run in line.get("d").split("M")[1:]] == [1, 2]
    assert "nan" not in line.get("d").lower()


def test_decades_are_evenly_spaced_on_a_logarithmic_axis_and_nothing_is_drawn_at_0():
    chart = line_chart([curve([0.9, 0.1, 0.2, 0.3], x=[0, 1, 10, 100])], looks(["IBA"], []), "t", "x", "y", log_x=True)
    (line,) = drawn(chart, "curve")
    places = [x for x, _ in points(line.get("d"))]
    assert len(places) == 3 and places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    ticks = [each.text for each in drawn(chart, "tick") if each.get("text-anchor") == "middle"]
    assert ticks == ["1", "10", "100"]


@pytest.mark.parametrize("ends", [(0, 1), (-0.31, 0.9), (0.071, 0.079), (3, 18000), (0.5, 0.5)])
def test_an_axis_has_some_round_ticks_within_its_ends(ends):
    scale = scale_of(ends, "x")
    ticks = scale.ticks()
    assert 3 <= len(ticks) <= 9
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    steps = np.diff(ticks)
    assert steps == pytest.approx(steps[0])
    assert f"{steps[0]:.5e}"[:7] in ("1.00000", "2.00000", "5.00000")


def test_one_value_has_a_scale():
    assert scale_of([], "x").low < scale_of([], "x").high
    assert scale_of([0.0, None, math.nan], "x").share(0.0) == pytest.approx(0.5)
    assert Scale(1, 100, "x", log=True).share(10) == pytest.approx(0.5)


def test_better_lies_up_and_left_with_error_bars_about_the_point():
    cells = {
        "IBA": (Cell(0.2, 0.1, 0.3, 9), Cell(0.8, 0.7, 0.9, 9)),
        "RandomMap": (Cell(0.5, None, None, 1), Cell(0.5, None, None, 1)),
        "LRP": (Cell(None, None, None, 0), Cell(0.5, 0.4, 0.6, 9)),
    }
    chart = scatter(cells, looks(["IBA", "LRP"], ["RandomMap"]), "t", "x", "y")
    at = {}
    for mark in drawn(chart, "mark"):
        at[mark.findtext("title")] = np.mean(points(mark.get("d")), axis=0)
    assert set(at) == {"IBA", "RandomMap"}  # what has no place is not drawn
    assert at["IBA"][0] < at["RandomMap"][0] and at["IBA"][1] < at["RandomMap"][1]
    across, up = drawn(chart, "bar")
    assert (float(across.get("x1")) + float(across.get("x2"))) / 2 == pytest.approx(at["IBA"][0], abs=0.2)
    assert (float(up.get("y1")) + float(up.get("y2"))) / 2 == pytest.approx(at["IBA"][1], abs=0.2)
    assert len(drawn(chart, "hollow")) == 1 and len(drawn(chart, "solid")) == 1


def test_names_in_a_crowd_do_not_cover_each_other():
    names = [*REGRESSION_METHODS, *CONTROLS, "LungField"]
    generator = np.random.default_rng(0)
    for _ in range(5):
        places = {name: (260 + generator.normal(0, 60), 160 + generator.normal(0, 40)) for name in names}
        made = place_labels(places, [], looks(names, []))
        boxes = []
        for label in (each for each in made if each.tag == "text"):
            left, bottom = float(label.get("x")), float(label.get("y"))
            boxes.append(Box(left, bottom - 9, left + 6 * len(label.text), bottom + 2))
        assert len(boxes) == len(names)
        covered = [a.overlap(b) for a, b in itertools.combinations(boxes, 2)]
        assert max(covered) < 10  # square units; a letter has 80


def test_a_method_looks_the_same_in_every_report_and_no_two_look_alike():
    classes, regression = looks(METHODS, CONTROLS), looks(REGRESSION_METHODS, [*CONTROLS, "LungField"])
    shared = ("GradCAM", "LRP", "RandomMap", "MultiLayerIBA")
    assert [classes[name] for name in shared] == [regression[name] for name in shared]
    for each in (classes, regression):
        assert len(set(each.values())) == len(each)
        assert len({(look.shape, look.control) for look in each.values()}) == len(each)  # without colour, too
    own = looks(["Mine", *METHODS, "Yours"], CONTROLS)
    assert [own[name] for name in METHODS] == [classes[name] for name in METHODS]
    assert len(set(own.values())) == len(own)
    many = looks([f"m{k}" for k in range(20)], [f"c{k}" for k in range(2 * len(CONTROL_COLORS))])
    assert len(many) == 20 + 2 * len(CONTROL_COLORS)


def test_an_outline_has_every_edge_between_inside_and_outside():
    mask = torch.from_numpy(np.random.default_rng(0).random((9, 7)) < 0.5)
    found = set()
    for x, y, kind, end in re.findall(r"M(\d+) (\d+)([HV])(\d+)", outline(mask)):
        x, y, end = int(x), int(y), int(end)
        found |= {("H", k, y) for k in range(x, end)} if kind == "H" else {("V", x, k) for k in range(y, end)}
    expected = set()

    def inside(y, x):
        return 0 <= y < 9 and 0 <= x < 7 and bool(mask[y, x])

    for y in range(10):
        for x in range(8):
            if inside(y, x) != inside(y - 1, x):
                expected.add(("H", x, y))
            if inside(y, x) != inside(y, x - 1):
                expected.add(("V", x, y))
    assert found == expected
    assert outline(torch.zeros(3, 3, dtype=torch.bool)) == ""


def test_negative_values_are_blue_positive_ones_warm_and_nothing_is_grey():
    image, signed = torch.full((20, 20), 0.5), torch.zeros(20, 20)
    signed[2, 3], signed[4, 5] = 3.0, -3.0
    shown = colored(image, signed).astype(int)
    assert shown[2, 3, 0] > shown[2, 3, 2] + 50 and shown[4, 5, 2] > shown[4, 5, 0] + 50
    untouched = signed.numpy() == 0
    assert (shown[untouched] == 128).all()


def test_one_stray_pixel_does_not_hide_the_map():
    image, saliency = torch.zeros(40, 40), torch.zeros(40, 40)
    saliency[10:20, 10:20] = 1.0
    clean = colored(image, saliency)
    saliency[0, 0] = 1e6
    assert (colored(image, saliency)[10:20, 10:20] == clean[10:20, 10:20]).all()


def test_what_is_not_a_number_counts_as_nothing():
    image, saliency = torch.full((8, 8), 0.5), torch.zeros(8, 8)
    saliency[0, 0], saliency[1, 1], saliency[2, 2] = math.nan, math.inf, -math.inf
    assert (colored(image, saliency) == 128).all()


def row(**changes) -> ExampleRow:
    image = torch.rand(300, 600, generator=torch.Generator().manual_seed(0))
    made = {
        **{"rank": "best", "ranked_by": "IBA", "image": image, "target_name": "Mass", "prediction": 0.9, "truth": 0.0},
        **{"maps": {"IBA": image}, "iou": {"IBA": None}},
    }
    return ExampleRow(**{**made, **changes})


def test_boxes_and_regions_keep_their_place_though_the_picture_is_reduced():
    region = torch.zeros(300, 600, dtype=torch.bool)
    region[100:200, 50:60] = True
    shown = row(boxes=torch.tensor([[10.0, 20, 110, 220]]), region=region)
    made = examples([shown], Results(made_up_results("classes", methods=["IBA"])), looks(["IBA"], CONTROLS))
    for drawing in (each for each in made.iter("svg")):
        assert drawing.get("viewBox") == "0 0 600 300"
        (box,) = drawing.iter("rect")
        assert [float(box.get(k)) for k in ("x", "y", "width", "height")] == [10, 20, 100, 200]
        (path,) = drawing.iter("path")
        assert path.get("d") == "M50 100H60M50 200H60M50 100V200M60 100V200"
    captions = ["".join(each.itertext()) for each in made.iter("figcaption")]
    assert captions == ["X-ray", "IBAIoU –"]
    assert "labelled negative" in "".join(made.itertext())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": "good"}, "rank='good'"),
        ({"maps": {"IBA": torch.zeros(3, 3)}}, "'IBA' is \\(3, 3\\), but the image is \\(300, 600\\)"),
        ({"region": torch.zeros(3, 3)}, "'region'"),
        ({"zones": torch.zeros(6, 300, 600)}, "scores=None"),
        ({"zones": torch.zeros(6, 30, 60), "scores": [1] * 6}, "'zone 0'"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        row(**changes)


def test_a_curve_of_unequal_lists_is_refused():
    with pytest.raises(ValueError, match="curve 'insertion' of 'IBA'"):
        Curve("IBA", "insertion", [0, 1], [0.5], [0.4], [0.6], [3])
