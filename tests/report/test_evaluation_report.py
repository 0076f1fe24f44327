import json
import math
from dataclasses import replace

import pytest
import torch
from made_up import CONTROLS, METHODS, made_up_curves, made_up_differences, made_up_examples, made_up_results
from page_reader import Node, read_page, rows

from lightning_chex.evaluation import MEASURES
from lightning_chex.report import (
    CheckpointComparison,
    Curve,
    Estimate,
    ExampleRow,
    Results,
    write_comparison,
    write_report,
)

KINDS = ("classes", "detectors", "regression")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Node]:
    """A page of each kind with everything in it."""
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for kind in KINDS:
        results = made_up_results(kind)
        made[kind] = page_of(folder, results, made_up_curves(results, 11), made_up_examples(results, 48))
    return made


def page_of(folder, results, curves=(), examples=()) -> Node:
    write_report(folder / "report.html", Results.from_json(results), curves, examples)
    return read_page(folder / "report.html")


def sections(page: Node) -> list[str]:
    return [str(each.attributes["id"]) for each in page.all("section")]


def section(page: Node, name: str) -> Node:
    return next(each for each in page.all("section") if each.attributes["id"] == name)


def tables(page: Node) -> list[Node]:
    """The tables of means: a row a method and a control."""
    known = [each for each in page.all("section") if each.attributes["id"] != "differences"]
    return [table for each in known for table in each.all("table")]


def one(
    key: str, values: dict[str, tuple[float, float, float] | None], better="higher", controls=("PriorMap",), patients=30
):
    """Results of one measure: name -> value and interval; a difference is clear of 0 where two do not overlap."""

    def estimate(value):
        value, low, high = value or (None, None, None)
        return {key: {"value": value, "ci_low": low, "ci_high": high, "n": 9, "patients": patients}}

    declared = MEASURES[key].to_json() if key in MEASURES else {"group": ""}
    measures = {key: declared | {"title": key, "better": better, "explanation": ""}}
    methods = {name: estimate(value) for name, value in values.items() if name not in controls}
    others = {name: estimate(value) for name, value in values.items() if name in controls}
    return {
        **{"task": "classification", "class_names": ["Mass"], "regions": "boxes", "left_out": {}, "protocol": {}},
        **{"measures": measures, "methods": methods, "controls": others},
        "differences": made_up_differences(measures, methods, others),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_and_every_control_stands_in_every_table_and_picture_row(pages, kind):
    results = made_up_results(kind)
    names = [*results["methods"], *results["controls"]]
    assert len(tables(pages[kind])) >= 4
    for table in tables(pages[kind]):
        assert [name for name in rows(table) if name in names] == names
        # controls are set apart from methods
        (below,) = table.all("tbody", "controls")
        assert [name for name in rows(below) if name in names] == list(results["controls"])
    examples = list(section(pages[kind], "examples").all("div", "example"))
    assert [example.text.strip().split(":")[0] for example in examples] == ["Best", "Median", "Worst"]
    for example in examples:
        assert [next(each.all("span")).text for each in example.all("figure")] == ["X-ray", *names]
        assert len(list(example.all("figure", "control"))) == len(results["controls"])


@pytest.mark.parametrize("kind", KINDS)
def test_controls_are_in_every_chart_hollow_and_the_others_are_not(pages, kind):
    results = made_up_results(kind)
    charts = list(pages[kind].all("svg", "chart"))
    assert len(charts) >= 8
    for chart in charts:
        hollow, solid = (
            {c for mark in chart.all("g", kind) for c in mark.attributes["class"].split() if c[1:].isdigit()}
            for kind in ("hollow", "solid")
        )
        assert hollow == {f"c{k}" for k in range(len(results["controls"]))}
        assert len(solid) == len(results["methods"]) and all(each[0] == "s" for each in solid)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_needs_nothing_else(pages, kind):
    for node in pages[kind].everything():
        assert node.tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in node.attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value.startswith(("#", "data:image/png;base64,")), value
    (style,) = pages[kind].all("style")
    assert "url(" not in style.text and "@import" not in style.text
    targets = {node.attributes.get("id") for node in pages[kind].everything()}
    links = [a.attributes["href"] for a in pages[kind].all("a")]
    assert links and {link[1:] for link in links} <= targets


def test_sections_are_those_with_data(pages, tmp_path):
    shared = ["perturbation", "sensitivity_n", "randomization", "convergence", "examples"]
    place = ["differences", "iou", "classes", "place"]
    assert sections(pages["classes"]) == [*place, *shared, "left-out", "protocol"]
    assert sections(pages["detectors"]) == [*place, "severity", *shared, "protocol"]
    assert sections(pages["regression"]) == ["differences", "severity", *shared, "protocol"]
    assert sections(page_of(tmp_path, one("road", {"IBA": (0.2, 0.1, 0.3), "PriorMap": (0.1, 0, 0.2)}))) == [
        "differences",
        "perturbation",
    ]
    nothing = one("road", {})
    page = page_of(tmp_path, nothing)
    assert sections(page) == [] and not list(page.all("table")) and not list(page.all("svg"))


def test_a_value_stands_with_its_interval_and_its_number(tmp_path):
    results = one("iou/otsu", {"IBA": (0.12345, 0.1, 0.2), "LRP": None, "PriorMap": (-0.05, -0.1, 0.0)})
    results["methods"]["LRP"]["iou/otsu"]["ci_low"] = math.nan
    results["methods"]["IBA"]["iou/otsu"]["class_mean"] = {"value": 0.3, "ci_low": 0.25, "ci_high": 0.35, "n": 7}
    (table,) = tables(page_of(tmp_path, results))
    found = rows(table)
    assert found["method"] == ["over boxesn = 9", "over classesn = 7", "paper (other data and weights)"]
    assert found["IBA"] == ["0.1230.100–0.200", "0.3000.250–0.350", "0.114"]
    assert found["LRP"] == ["–", "–", "0.025"]
    assert found["PriorMap"] == ["−0.050−0.100 to 0.000", "–", "–"]


def test_an_unequal_number_is_said_in_its_cell(tmp_path):
    results = one("road", {"IBA": (0.2, 0.1, 0.3), "LRP": (0.2, 0.1, 0.3), "PriorMap": (0.1, 0.0, 0.2)})
    results["methods"]["LRP"]["road"]["n"] = 1200
    (table,) = tables(page_of(tmp_path, results))
    found = rows(table)
    assert found["method"] == ["ROADn = 9"]
    assert "n =" not in found["IBA"][0] and found["LRP"][0].endswith(", n = 1,200")


@pytest.mark.parametrize(
    ("better", "values", "marked"),
    [
        ("higher", {"IBA": (0.5, 0.4, 0.6), "LRP": (0.45, 0.4, 0.5), "PriorMap": (0.2, 0.1, 0.3)}, ("b", "IBA")),
        ("higher", {"IBA": (0.5, 0.3, 0.6), "LRP": (0.45, 0.4, 0.5), "PriorMap": (0.2, 0.1, 0.3)}, ("†", "IBA")),
        ("higher", {"IBA": (0.1, 0.0, 0.2), "PriorMap": (0.9, 0.8, 1.0)}, ("†", "IBA")),
        ("lower", {"IBA": (0.1, 0.0, 0.2), "LRP": (0.5, 0.4, 0.6), "PriorMap": (0.9, 0.8, 1.0)}, ("b", "IBA")),
        ("lower", {"IBA": (0.5, 0.4, 0.6), "PriorMap": (0.2, 0.1, 0.3)}, ("†", "IBA")),
        (None, {"IBA": (0.5, 0.4, 0.6), "PriorMap": (0.2, 0.1, 0.3)}, None),
        ("higher", {"IBA": (0.5, 0.4, 0.6), "PriorMap": None}, None),
        ("higher", {"IBA": (0.5, None, None), "PriorMap": (0.2, 0.1, 0.3)}, ("†", "IBA")),
        ("higher", {"IBA": None, "PriorMap": (0.2, 0.1, 0.3)}, None),
        ("higher", {"IBA": (0.0, 0.0, 0.0), "LRP": (0.0, 0.0, 0.0), "PriorMap": (0.1, 0.0, 0.3)}, None),
        ("higher", {"IBA": (0.5, 0.4, 0.6), "LRP": (0.5, 0.4, 0.6), "PriorMap": (0.2, 0.1, 0.3)}, ("b", "IBA", "LRP")),
        ("higher", {"IBA": (0.5, 0.4, 0.6), "LRP": (0.5, 0.2, 0.6), "PriorMap": (0.2, 0.1, 0.3)}, ("b", "IBA")),
    ],
)
def test_the_best_method_is_bold_only_where_it_is_clear_of_the_controls(tmp_path, better, values, marked):
    (table,) = tables(page_of(tmp_path, one("road", values, better)))
    bold = [next(row.all("th")).text for row in table.all("tr") if list(row.all("b"))]
    dagger = [name for name, cells in rows(table).items() if any("†" in cell for cell in cells)]
    assert bold == (list(marked[1:]) if marked and marked[0] == "b" else [])
    assert dagger == (list(marked[1:]) if marked and marked[0] == "†" else [])
    note = section(page_of(tmp_path, one("road", values, better)), "perturbation").text
    assert ("not better than every control" in note) == bool(dagger)


def test_every_control_counts_for_the_mark(tmp_path):
    values = {"IBA": (0.5, 0.4, 0.6), "PriorMap": (0.2, 0.1, 0.3), "LungField": (0.41, 0.35, 0.45)}
    (table,) = tables(page_of(tmp_path, one("road", values, controls=("PriorMap", "LungField"))))
    assert not list(table.all("b")) and rows(table)["IBA"][0].startswith("0.500†")


def outcome(page: Node) -> list[str]:
    return [each.text for each in next(page.all("ul", "outcome")).all("p")]


def test_the_outcome_names_the_controls_that_methods_beat(tmp_path):
    values = {
        **{"IBA": (0.5, 0.4, 0.6), "GradCAM": (0.25, 0.2, 0.3), "LRP": (0.05, 0.0, 0.1), "Gradient": (0.5, 0.41, 0.6)},
        **{"PriorMap": (0.3, 0.25, 0.35), "RandomMap": (0.1, 0.08, 0.12)},
    }
    assert outcome(page_of(tmp_path, one("iou/otsu", values, controls=("PriorMap", "RandomMap")))) == [
        "Mean IoU, threshold rule “Otsu” (n = 9): IBA and Gradient do better than every control (the best "
        "control is PriorMap, 0.300); "
        "GradCAM does better than RandomMap only; LRP does better than none of them. "
        "Among the methods, IBA does better than GradCAM and LRP, with no sure difference from Gradient."
    ]


def test_the_outcome_says_plainly_when_nothing_is_better(tmp_path):
    values = {"IBA": (0.5, 0.2, 0.6), "PriorMap": (0.3, 0.25, 0.35)}
    (sentence,) = outcome(page_of(tmp_path, one("iou/otsu", values)))
    assert "no method does better than any control" in sentence
    (sentence,) = outcome(page_of(tmp_path, one("iou/otsu", values, controls=())))
    assert "no control was measured" in sentence
    clear = {"IBA": (0.5, 0.45, 0.6), "PriorMap": (0.3, 0.25, 0.35)}
    (sentence,) = outcome(page_of(tmp_path, one("iou/otsu", clear, patients=29)))
    assert sentence.endswith(": 29 patients, fewer than 30, so nothing is called better or worse.")
    older = one("iou/otsu", clear)
    del older["differences"]  # of an earlier version
    (sentence,) = outcome(page_of(tmp_path, older))
    assert "these results hold no paired differences, so nothing is called better or worse" in sentence


def test_the_oracle_is_never_the_headline(tmp_path):
    page = page_of(tmp_path, one("iou/oracle", {"IBA": (0.5, 0.4, 0.6), "PriorMap": (0.3, 0.2, 0.35)}))
    assert "Mean IoU" not in next(page.all("header")).text
    assert "upper bound of what a rule could reach" in section(page, "iou").text


def test_figures_of_the_paper_stand_in_columns_of_their_own(pages):
    table = rows(next(section(pages["classes"], "iou").all("table")))
    assert table["method"][-1] == "paper (other data and weights)"
    published = {"GradCAM": ".077", "IntegratedGradients": ".076", "LRP": ".025", "Gradient": ".114", "IBA": ".114"}
    published |= {"InverseIBA": ".088", "MultiLayerIBA": ".189", "EveryPixel": ".0754*"}
    assert {name: table[name][-1] for name in published} == {name: f"0{value}" for name, value in published.items()}
    assert table["RandomMap"][-1] == table["PriorMap"][-1] == "–"

    table = rows(next(section(pages["detectors"], "classes").all("table")))
    assert [table["IntegratedGradients"][k] for k in (1, 3, 5)] == ["0.176", "0.130", "0.140"]
    assert [table["InverseIBA"][k] for k in (1, 3, 5)] == ["0.194", "0.245", "0.243"]
    assert [table["GradCAM"][k] for k in (1, 3, 5)] == ["0.110", "0.000", "0.011"]

    table = rows(next(section(pages["classes"], "classes").all("table")))
    digits = ("016", "071", "004", "001", "102", "011", "000", "003", "024")
    assert table["InverseIBA, BCE"] == [*(f"0.{each}" for each in digits), "–"]
    assert table["InverseIBA, weighted BCE"][:2] == ["0.073", "0.131"]

    table = rows(next(section(pages["regression"], "severity").all("table")))
    assert [table[f"RegressionIBA_{loss}"][-1] for loss in ("MSE", "RM", "DV")] == ["0.4766", "0.4766", "0.4404*"]
    assert table["RandomMap"][-1] == "0.0004"


def test_the_papers_mean_is_that_over_boxes(pages):
    # boxes of each class among the 984, in the order of the classes
    counts = (180, 146, 153, 123, 85, 79, 120, 98)
    table = rows(next(section(pages["classes"], "classes").all("table")))
    assert table["method"][8].startswith("mean over boxes")
    for loss in ("BCE", "weighted BCE"):
        *values, mean = map(float, table[f"InverseIBA, {loss}"][:9])
        assert sum(n * v for n, v in zip(counts, values, strict=True)) / sum(counts) == pytest.approx(mean, abs=5e-4)


def test_hostile_strings_are_words_and_nothing_else(tmp_path):
    evil = "</title></style><script>alert('x')</script><img src=http://x onerror=y>&amp;\"'"
    results = made_up_results("classes", methods=[evil, "IBA"])
    results["class_names"] = [evil if name == "Mass" else name for name in results["class_names"]]
    results["left_out"] = {evil: evil}
    results["protocol"]["split"] = results["protocol"]["data"]["module"] = evil
    results["protocol"]["settings"] = {evil: [evil, {evil: None}]}
    results["measures"]["iou/otsu"] |= {"title": evil, "explanation": evil}
    results["measures"]["own"] = {"title": evil, "better": "higher", "group": evil, "explanation": evil}
    results["descriptions"][evil] = {"title": evil, "color": evil, "description": evil}
    results["protocol"]["checkpoint"] = {"file": evil, "sha256": evil}
    results["methods"][evil]["own"] = {"value": 0.5, "ci_low": None, "ci_high": None, "n": 1, "patients": 1}
    sample = made_up_examples(made_up_results("classes", methods=["IBA"]), 32)[0]
    maps = {evil: sample.maps["IBA"]}
    row = replace(sample, target_name=evil, measure=evil, ranked_by=evil, maps=maps, iou={evil: 0.5})
    page = page_of(tmp_path, results, made_up_curves(results, 5), [row])
    assert {node.tag for node in page.everything()} & {"script", "img"} == set()
    for name in ("title", "h1"):
        assert "alert" not in next(page.all(name)).text
    assert page.text.count(evil) > 20  # shown as it is


def test_names_of_checkpoints_are_escaped_in_a_comparison(tmp_path):
    evil = "<script>alert('x')</script>\"'"
    made = made_up_results("classes", methods=["IBA"])
    made["protocol"]["checkpoint"]["file"] = evil
    results = Results.from_json(made)
    found = CheckpointComparison(
        {evil: results, "plain": results}, {evil: {}, "plain": {}}, {}, 240, {evil: 1, "plain": 0}
    )
    write_comparison(tmp_path / "comparison.html", found)
    page = read_page(tmp_path / "comparison.html")
    assert not list(page.all("script")) and page.text.count(evil) > 4
    assert f"{evil}/report.html" in {link.attributes["href"] for link in page.all("a")}


def test_a_lone_surrogate_does_not_cost_the_report(tmp_path):
    results = one("road", {"IBA": (0.2, 0.1, 0.3), "PriorMap": (0.1, 0, 0.2)})
    results["protocol"] = {"checkpoint": {"file": "b\udce4d.ckpt"}}
    assert "b?d.ckpt" in page_of(tmp_path, results).text


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_gives_values_without_intervals(tmp_path, kind):
    results = made_up_results(kind, n=1)
    for part in ("methods", "controls"):
        for measures in results[part].values():
            for estimate in measures.values():
                estimate["ci_low"] = estimate["ci_high"] = math.nan
    page = page_of(tmp_path, results, made_up_curves(results, 5))
    assert "nan" not in page.text.lower().replace("explanation", "")
    for table in page.all("table"):
        assert not list(table.all("b"))
        assert "no interval" in rows(table)[next(iter(results["methods"]))][0]


def test_measures_without_a_value_are_left_out_and_a_method_without_one_has_dashes(tmp_path):
    results = made_up_results("classes")
    for part in ("methods", "controls"):
        for measures in results[part].values():
            for key, estimate in measures.items():
                gone = {"value": None, "ci_low": None, "ci_high": None, "n": 0, "patients": 0}
                if key.startswith(("iou", "accuracy", "insertion")):
                    estimate |= {**gone, "class_mean": gone, "per_class": {}}
    results["methods"]["LRP"] = {}
    page = page_of(tmp_path, results)
    assert "iou" not in sections(page) and "classes" not in sections(page)
    table = rows(next(section(page, "place").all("table")))
    assert table["LRP"] == ["–"] * 4 and table["IBA"][0] != "–"
    assert "insertion AUC" not in section(page, "perturbation").text


@pytest.mark.parametrize("controls", [True, False])
def test_one_method_is_enough(tmp_path, controls):
    results = made_up_results("classes", methods=["GradCAM"])
    if not controls:
        results["controls"] = {}
    page = page_of(tmp_path, results, made_up_curves(results, 5), made_up_examples(results, 32))
    for table in tables(page):
        assert "GradCAM" in rows(table)
        assert bool(list(table.all("tbody", "controls"))) == controls
    if not controls:
        assert not [b for table in page.all("table") for b in table.all("b")]
        assert "No control was evaluated" in page.text


def test_a_measure_the_page_does_not_know_is_not_lost(tmp_path):
    page = page_of(tmp_path, one("novel/0.3", {"IBA": (0.7, 0.6, 0.8), "PriorMap": (0.1, 0.0, 0.2)}))
    assert sections(page) == ["further"]
    assert rows(tables(page)[0])["IBA"] == ["0.7000.600–0.800"]


def test_curves_of_methods_that_are_not_in_the_results_are_not_shown(tmp_path):
    results = made_up_results("classes", methods=["IBA", "LRP"])
    curves = made_up_curves(results, 5)
    del results["methods"]["LRP"]
    results["protocol"] = {}
    page = page_of(tmp_path, results, curves)
    assert "LRP" not in page.text and list(page.all("svg", "chart"))


def test_the_head_of_the_page_says_what_was_evaluated(pages):
    facts = next(pages["classes"].all("dl", "facts"))
    terms = [each.text for each in facts.all("dt")]
    said = dict(zip(terms, (each.text for each in facts.all("dd")), strict=True))
    assert said["Evaluated"] == "240 images, 280 targets, 120 patients"
    assert said["Model"] == "made_up.ckpt, SHA-256 abababababab"
    assert said["Threshold rule"] == "strongest 5 % of the pixels"
    assert said["Statistics"] == "features.denseblock3 from 800 images (training split)"
    assert said["Methods"] == ", ".join(METHODS)
    assert all(f"{name} (" in said["Controls"] for name in CONTROLS)  # with what each one does
    protocol = section(pages["classes"], "protocol").text
    assert "ab" * 32 in protocol and "1, 10, 100" in protocol


def test_a_part_that_is_missing_is_named():
    results = made_up_results("classes")
    del results["protocol"], results["regions"]
    with pytest.raises(ValueError, match="results lacks regions, protocol"):
        Results.from_json(results)


def test_ten_maps_of_three_images_stay_small(tmp_path):
    results = made_up_results("classes")
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(11, 224, 224, generator=generator)  # nothing is harder to compress
    names = [*METHODS, *CONTROLS]
    row = ExampleRow(
        rank="best",
        ranked_by="IBA",
        image=noise[0],
        target_name="Mass",
        prediction=0.5,
        truth=1.0,
        maps=dict(zip(names, noise[1:], strict=True)),
    )
    page_of(tmp_path, results, made_up_curves(results), [row] * 3)
    assert (tmp_path / "report.html").stat().st_size < 8e6


def test_a_curve_without_a_value_is_neither_drawn_nor_named(tmp_path):
    results = one("road", {"IBA": (0.2, 0.1, 0.3), "LRP": (0.2, 0.1, 0.3), "PriorMap": (0.1, 0.0, 0.2)})
    curves = [
        Curve("IBA", "sensitivity_n", [1, 10], [Estimate(0.1, 0.0, 0.2, 9, 9), Estimate(0.2, 0.1, 0.3, 9, 9)]),
        Curve("LRP", "sensitivity_n", [1, 10], [Estimate(math.nan, math.nan, math.nan, 0, 0)] * 2),
        Curve("LRP", "randomization", [0, 1], [Estimate(math.nan, math.nan, math.nan, 0, 0)] * 2),
    ]
    page = page_of(tmp_path, results, curves)
    assert sections(page) == ["differences", "perturbation", "sensitivity_n"]
    (key,) = section(page, "sensitivity_n").all("ul", "legend")
    assert [item.text for item in key.all("li")] == ["IBA"]


def test_nothing_is_marked_where_controls_are_no_reference(tmp_path):
    values = {"IBA": (0.1, 0.0, 0.2), "PriorMap": (1.0, 0.99, 1.0)}
    for key, better in (("randomization", "lower"), ("road_morf", "lower")):
        (table,) = tables(page_of(tmp_path, one(key, values, better)))
        assert not list(table.all("b")) and "†" not in table.text
    (table,) = tables(page_of(tmp_path, one("deletion_auc", values, "lower")))
    assert [each.text for each in table.all("b")] == ["0.100"]


def test_few_patients_make_nothing_better(tmp_path):
    def bold() -> list[str]:
        return [each.text for table in tables(page_of(tmp_path, results)) for each in table.all("b")]

    results = one("iou/otsu", {"IBA": (0.5, 0.4, 0.6), "PriorMap": (0.2, 0.1, 0.3)})
    assert bold() == ["0.500"]
    for found in (*results["methods"].values(), *results["controls"].values()):
        found["iou/otsu"]["patients"] = 29
    assert bold() == ["0.500"]  # the pairs' patients count
    results["differences"]["iou/otsu"][0]["patients"] = 29
    assert bold() == []


@pytest.mark.parametrize("kind", KINDS)
def test_results_come_back_from_their_file_as_they_were(kind):
    written = made_up_results(kind)
    for measure in written["measures"].values():
        measure["statistic"] = "mean"
    written["methods"]["LRP"]["road"] |= {"value": math.nan, "ci_low": math.nan, "ci_high": None}
    results = Results.from_json(written)
    content = json.dumps(results.to_json(), allow_nan=False)
    written["methods"]["LRP"]["road"] |= {"value": None, "ci_low": None}
    assert json.loads(content) == json.loads(json.dumps(written))
    again = Results.from_json(json.loads(content))
    assert repr(again) == repr(Results.from_json(json.loads(json.dumps(written))))  # NaN is not equal to itself
