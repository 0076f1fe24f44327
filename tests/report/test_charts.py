"""The report's charts and pictures, as they stand on the page."""

import itertools
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import CONTROLS, METHODS, REGRESSION_METHODS, made_up_curves, made_up_results
from page_reader import Node
from test_evaluation_report import one, page_of

import lightning_chex
from lightning_chex.attribution import Attributor
from lightning_chex.attribution.description import COLORS
from lightning_chex.report import Curve, Estimate, ExampleRow, Results, signed_overlay, write_report
from lightning_chex.report.page.charts import MARKERS


def curve(values, method="IBA", x=None, name="sensitivity_n", half=0.1) -> Curve:
    x = list(range(len(values))) if x is None else x
    return Curve(method, name, x, [Estimate(v, v - half, v + half, n=9, patients=9) for v in values])


def chart_of(folder, *curves) -> Node:
    methods = {each.method: (0.5, 0.4, 0.6) for each in curves}
    (chart,) = page_of(folder, one("road", {**methods, "PriorMap": (0.1, 0.0, 0.2)}), curves).all("svg", "chart")
    return chart


def points(path: Node) -> list[tuple[float, float]]:
    """The corners of a path on the page."""
    moved = re.match(r"translate\((\S+) (\S+)\)", path.attributes.get("transform") or "translate(0 0)")
    found = re.findall(r"(-?[\d.]+) (-?[\d.]+)(?= [A-Zz]|$)", path.attributes["d"])
    return [(float(x) + float(moved[1]), float(y) + float(moved[2])) for x, y in found]


def lines(chart: Node) -> list[Node]:
    """The lines of its curves, without their markers."""
    return [next(each.all("path")) for each in chart.all("g", "curve")]


def ticks(chart: Node, axis: str) -> list[str]:
    return [text.text for tick in chart.all("g", axis) for text in tick.all("text")]


def test_a_curve_goes_through_its_values(tmp_path):
    chart = chart_of(tmp_path, curve([0.0, 1.0, 0.5], name="insertion"))
    (line,) = lines(chart)
    (x0, y0), (x1, y1), (x2, y2) = points(line)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 < y2 < y0 and (y0 - y1) == pytest.approx(2 * (y2 - y1), abs=0.2)  # up is small
    (band,) = [next(each.all("path")) for each in chart.all("g", "band")]
    for x, height in ((x0, y0), (x1, y1), (x2, y2)):
        ends = {y for at, y in points(band) if at == pytest.approx(x, abs=0.2)}
        # a fifth of the way from 0 to 1, about the value
        assert max(ends) - min(ends) == pytest.approx(0.2 * (y0 - y1), abs=0.2)
        assert (max(ends) + min(ends)) / 2 == pytest.approx(height, abs=0.2)


@pytest.mark.parametrize("hole", [math.nan, math.inf])
def test_a_curve_breaks_where_a_value_is_missing(tmp_path, hole):
    chart = chart_of(tmp_path, curve([0.1, 0.4, hole, 0.2, 0.3], name="insertion"))
    (line,) = lines(chart)
    pieces = [re.findall(r"[\d.]+ [\d.]+", piece) for piece in line.attributes["d"].split("M")[1:]]
    assert [len(piece) for piece in pieces] == [2, 2]
    drawn = [value for node in chart.everything() for value in node.attributes.values() if value]
    assert drawn and not [value for value in drawn if re.search(r"\b(nan|inf)\b", value)]


def test_decades_are_evenly_spaced_on_a_logarithmic_axis_and_nothing_is_drawn_at_0(tmp_path):
    chart = chart_of(tmp_path, curve([0.9, 0.1, 0.2, 0.3], x=[0, 1, 10, 100]))
    (line,) = lines(chart)
    places = [x for x, _ in points(line)]
    assert len(places) == 3 and places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert ticks(chart, "xtick") == ["1", "10", "100"]
    assert ticks(chart_of(tmp_path, curve([0.1, 0.2], x=[1, 50000])), "xtick")[-2:] == ["1,000", "10,000"]


@pytest.mark.parametrize("ends", [(0, 1), (-0.31, 0.9), (0.071, 0.079), (3, 18000), (0.5, 0.5)])
def test_an_axis_has_some_round_ticks_within_its_ends(tmp_path, ends):
    half = abs(ends[1] - ends[0]) / 100
    written = ticks(chart_of(tmp_path, curve(ends, name="insertion", half=half)), "ytick")
    values = [float(each.replace(",", "").replace("−", "-")) for each in written]
    assert 3 <= len(values) <= 9
    around = 0.1 * (ends[1] - ends[0] or 1)
    assert all(ends[0] - around <= value <= ends[1] + around for value in values)
    steps = np.diff(values)
    assert steps == pytest.approx(steps[0])
    assert f"{steps[0]:.5e}"[:7] in ("1.00000", "2.00000", "5.00000")


def clouds(folder, places: dict[str, tuple[Estimate, Estimate]], controls=("RandomMap",)) -> Node:
    """The chart of insertion against deletion: name -> deletion (across) and insertion (up)."""

    def found(names) -> dict:
        pairs = {name: zip(("deletion_auc", "insertion_auc"), places[name], strict=True) for name in names}
        return {name: {key: vars(estimate) for key, estimate in pair} for name, pair in pairs.items()}

    results = one("road", {})
    results |= {"methods": found(set(places) - set(controls)), "controls": found(controls)}
    (chart,) = page_of(folder, results).all("svg", "chart")
    return chart


def test_better_lies_up_and_left_with_error_bars_about_the_point(tmp_path):
    nan = math.nan
    chart = clouds(
        tmp_path,
        {
            "IBA": (Estimate(0.2, 0.1, 0.3, 9, 9), Estimate(0.8, 0.7, 0.9, 9, 9)),
            "RandomMap": (Estimate(0.5, nan, nan, 1, 1), Estimate(0.5, nan, nan, 1, 1)),
            "LRP": (Estimate(nan, nan, nan, 0, 0), Estimate(0.5, 0.4, 0.6, 9, 9)),
        },
    )
    at = {}
    for mark in chart.all("g", "mark"):
        (shape,) = mark.all("path")
        at[next(mark.all("title")).text] = np.mean(points(shape), axis=0)
    assert set(at) == {"IBA", "RandomMap"}  # what has no place is not drawn
    assert at["IBA"][0] < at["RandomMap"][0] and at["IBA"][1] < at["RandomMap"][1]
    across, up = ([points(path) for path in bar.all("path")][0] for bar in chart.all("g", "bar"))
    for ends in (across, up):
        assert np.mean(ends, axis=0) == pytest.approx(at["IBA"], abs=0.7)
    assert across[0][0] < across[1][0] and up[0][1] > up[1][1]
    assert len(list(chart.all("g", "hollow"))) == 1 and len(list(chart.all("g", "solid"))) == 1


def test_names_in_a_crowd_do_not_cover_each_other(tmp_path):
    names = [*REGRESSION_METHODS, *CONTROLS, "LungField"]
    generator = np.random.default_rng(0)
    for _ in range(5):
        across, up = (
            [Estimate(v, v - 0.01, v + 0.01, 9, 9) for v in generator.normal(0.5, 0.1, len(names)).tolist()]
            for _ in range(2)
        )
        places = dict(zip(names, zip(across, up, strict=True), strict=True))
        labels = [text for group in clouds(tmp_path, places).all("g", "label") for text in group.all("text")]
        assert sorted(label.text for label in labels) == sorted(names)
        for a, b in itertools.combinations(labels, 2):
            (left, low), (other, deep) = ((float(t.attributes["x"]), float(t.attributes["y"])) for t in (a, b))
            width = min(left + 6 * len(a.text), other + 6 * len(b.text)) - max(left, other)
            height = 11 - abs(low - deep)
            assert max(width, 0) * max(height, 0) < 10  # square units; a letter has 80


def samples(page: Node) -> dict[str, str]:
    """Name -> how the legends draw it."""
    found: dict[str, set[str]] = {}
    for legend in page.all("ul", "legend"):
        for item in legend.all("li"):
            drawn = [sorted(node.attributes.items()) for node in item.everything() if node.tag == "path"]
            found.setdefault(item.text.removesuffix(" control"), set()).add(str(drawn))
    assert all(len(ways) == 1 for ways in found.values())
    return {name: next(iter(ways)) for name, ways in found.items()}


def test_a_method_looks_the_same_in_every_report_and_no_two_look_alike(tmp_path):
    def drawn(methods, controls=CONTROLS) -> dict[str, str]:
        results = made_up_results("classes", methods=methods)
        results["controls"] = {name: next(iter(results["controls"].values())) for name in controls}
        return samples(page_of(tmp_path, results, made_up_curves(results, 5)))

    classes, regression = drawn(METHODS), drawn(REGRESSION_METHODS, [*CONTROLS, "LungField"])
    shared = ("GradCAM", "LRP", "RandomMap", "MultiLayerIBA")
    assert [classes[name] for name in shared] == [regression[name] for name in shared]
    for each in (classes, regression):
        assert len(set(each.values())) == len(each)
        assert len({re.sub(r"var\(--\w+\)", "", one) for one in each.values()}) == len(each)  # without colour, too
    own = drawn(["Mine", *METHODS, "Yours"])
    assert [own[name] for name in METHODS] == [classes[name] for name in METHODS]
    assert len(set(own.values())) == len(own)
    assert len(drawn([f"m{k}" for k in range(20)], [f"c{k}" for k in range(8)])) == 28


def test_a_method_has_the_title_colour_and_description_of_its_class(tmp_path):
    class Mine(Attributor):
        title = "A method of mine"
        color = "olive"
        description = "Marks what I like."

    class Plain(Attributor):
        """Marks nothing."""

    results = made_up_results("classes", methods=["Mine", "Plain", "IBA"])
    results["descriptions"] |= {each.__name__: asdict(each().about()) for each in (Mine, Plain)}
    page = page_of(tmp_path, results, made_up_curves(results, 5))
    drawn = samples(page)
    assert "var(--s8)" in drawn["Mine"] and "var(--s0)" in drawn["IBA"]
    # without a colour of its own a method has none of the others'
    assert not {"var(--s8)", "var(--s0)"} & set(re.findall(r"var\(--s\d\)", drawn["Plain"]))
    header = next(page.all("header")).text
    assert "Mine (A method of mine)" in header and "Marks what I like." in header and "Marks nothing." in header


def test_an_unknown_colour_of_a_method_is_refused():
    with pytest.raises(TypeError, match="Loud.color='pink' is unknown: choose blue, orange"):
        type("Loud", (Attributor,), {"color": "pink"})


def test_each_colour_of_methods_has_a_marker_and_a_tone_in_both_modes():
    css = (Path(write_report.__code__.co_filename).parent / "style.css").read_text()
    assert len(COLORS) == len(MARKERS)
    for number in range(len(COLORS)):
        assert css.count(f"--s{number}:#") == 2


def styles(node: Node) -> Iterator[str]:
    yield from (each.attributes["style"] or "" for each in node.everything() if "style" in each.attributes)


def test_charts_follow_the_mode_of_the_page_and_stand_side_by_side(tmp_path):
    results = made_up_results("regression")
    page = page_of(tmp_path, results, made_up_curves(results, 5))
    used = {name for style in styles(page) for name in re.findall(r"var\((--\w+)\)", style)}
    assert {"--ink", "--soft", "--line", "--paper", "--s0", "--c0"} <= used
    (css,) = page.all("style")
    dark = css.text.partition("prefers-color-scheme:dark")[2]
    for name in used:
        assert f"{name}:#" in css.text.partition("@media")[0] and f"{name}:#" in dark
    # no colour of its own, no font of its own
    assert not [style for style in styles(page) if "#" in style or "font-family" in style]
    ids = [node.attributes["id"] for node in page.everything() if "id" in node.attributes]
    assert len(set(ids)) == len(ids) and not [
        id for chart in page.all("svg") for id in chart.everything() if "id" in id.attributes
    ]
    for chart in page.all("svg", "chart"):
        assert chart.attributes["role"] == "img" and next(chart.all("title")).text


def test_the_same_results_give_the_same_page(tmp_path):
    results = made_up_results("classes")
    pages = []
    for name in ("a", "b"):
        write_report(tmp_path / name, Results.from_json(results), made_up_curves(results, 5))
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_wheel_holds_every_file_of_the_package():
    root = Path(lightning_chex.__file__).parent
    project = tomllib.loads((root.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["lightning_chex"]
    data = {path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert {"style.css", "page.html", "default.yaml"} <= {path.name for path in data}
    assert data == {path for pattern in patterns for path in root.glob(pattern)}


def pictures(folder, shown: ExampleRow) -> Node:
    (example,) = page_of(folder, made_up_results("classes", methods=["IBA"]), [], [shown]).all("div", "example")
    return example


def test_an_outline_has_every_edge_between_inside_and_outside(tmp_path):
    mask = torch.from_numpy(np.random.default_rng(0).random((9, 7)) < 0.5)
    image = torch.zeros(9, 7)

    def outline(region: torch.Tensor) -> str:
        drawing = next(pictures(tmp_path, row(image=image, maps={"IBA": image}, region=region)).all("svg"))
        return next(drawing.all("path", "region")).attributes["d"]

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
    assert outline(torch.zeros(9, 7, dtype=torch.bool)) == ""


def test_negative_values_are_blue_positive_ones_warm_and_nothing_is_grey():
    image, signed = torch.full((20, 20), 0.5), torch.zeros(20, 20)
    signed[2, 3], signed[4, 5] = 3.0, -3.0
    shown = signed_overlay(image, signed).astype(int)
    assert shown[2, 3, 0] > shown[2, 3, 2] + 50 and shown[4, 5, 2] > shown[4, 5, 0] + 50
    untouched = signed.numpy() == 0
    assert (shown[untouched] == 128).all()


def test_one_stray_pixel_does_not_hide_the_map():
    image, saliency = torch.zeros(40, 40), torch.zeros(40, 40)
    saliency[10:20, 10:20] = 1.0
    clean = signed_overlay(image, saliency)
    saliency[0, 0] = 1e6
    assert (signed_overlay(image, saliency)[10:20, 10:20] == clean[10:20, 10:20]).all()


def test_what_is_not_a_number_counts_as_nothing():
    image, saliency = torch.full((8, 8), 0.5), torch.zeros(8, 8)
    saliency[0, 0], saliency[1, 1], saliency[2, 2] = math.nan, math.inf, -math.inf
    assert (signed_overlay(image, saliency) == 128).all()


def row(**changes) -> ExampleRow:
    image = torch.rand(300, 600, generator=torch.Generator().manual_seed(0))
    made = {
        **{"rank": "best", "ranked_by": "IBA", "image": image, "target_name": "Mass", "prediction": 0.9, "truth": 0.0},
        **{"maps": {"IBA": image}, "iou": {"IBA": None}},
    }
    return ExampleRow(**{**made, **changes})


def test_boxes_and_regions_keep_their_place_though_the_picture_is_reduced(tmp_path):
    region = torch.zeros(300, 600, dtype=torch.bool)
    region[100:200, 50:60] = True
    shown = row(boxes=torch.tensor([[10.0, 20, 110, 220]]), region=region)
    made = pictures(tmp_path, shown)
    for drawing in made.all("svg"):
        assert drawing.attributes["viewbox"] == "0 0 600 300"
        (box,) = drawing.all("rect")
        assert [float(box.attributes[k] or "") for k in ("x", "y", "width", "height")] == [10, 20, 100, 200]
        (path,) = drawing.all("path")
        assert path.attributes["d"] == "M50 100H60M50 200H60M50 100V200M60 100V200"
    assert [each.text for each in made.all("figcaption")] == ["X-ray", "IBAIoU –"]
    assert "labelled negative" in made.text


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
    with pytest.raises(ValueError, match="curve 'insertion' of 'IBA' has 2 positions and 1 means"):
        Curve("IBA", "insertion", [0, 1], [Estimate(0.5, 0.4, 0.6, 3, 3)])


def test_tables_show_that_they_scroll():
    css = (Path(write_report.__code__.co_filename).parent / "style.css").read_text()
    layers = re.findall(r"\.scroll\{background:([^}]*)\}", css)
    # a shade that stays at the edge, and above it a cover that moves with the table
    assert len(layers) == 1 and "local" in layers[0].partition("var(--shade)")[0] and "scroll" in layers[0]
    # an opaque cell would hide the shade
    assert not re.search(r"td[^{]*\{[^}]*background:var\(--(tint|paper)\)", css)
