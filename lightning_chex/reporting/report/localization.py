"""Do maps lie on the findings, and grow with severity? Tables 1 to 3 of the paper and the measures beside them."""

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from lightning_chex.class_names import DETECTED_SCORES
from lightning_chex.reporting.report import paper
from lightning_chex.reporting.report.charts import Look, curve_figure
from lightning_chex.reporting.report.markup import curves_named, details, explained, section
from lightning_chex.reporting.report.tables import Column, PaperColumn, PaperRow, measure_table
from lightning_chex.reporting.results import IOU_RULES, Curve, Results

OTHER = ("pointing_game", "effective_heat_ratio", "mass_accuracy", "rank_accuracy")
ACCURACY = {"accuracy_iou": "T(IoU): IoU of at least", "accuracy_iobb": "T(IoBB): share inside of at least"}

SEVERITY = {
    "severity_correlation": "map with zone scores, over pixels",
    "zone_correlation": "within an image, over its zones",
}

_PAPER = (
    "The paper's figures are means over boxes with a threshold rule it does not state. * Not in the paper: on its "
    f"984 NIH boxes a map that marks every pixel scores {paper.EVERY_PIXEL}, the mean area of a box. Figures near it "
    "carry no localisation."
)

_DETECTORS = {name: f"detector {'/'.join(map(str, scores))}" for name, scores in DETECTED_SCORES.items()}


def localization(results: Results, curves: Sequence[Curve], looks: Mapping[str, Look]) -> list[Element | None]:
    """All sections about place; None for those without data."""
    return [_overall(results), _by_class(results), _other(results, curves, looks)]


def _overall(results: Results) -> Element | None:
    rules = [key for key in IOU_RULES if results.has(key)]
    if not rules:
        return None
    columns: list[Column | PaperColumn] = []
    for key in rules:
        columns.append(Column(f"over {_unit(results)}", key, IOU_RULES[key]))
        if results.has(key, over_classes=True):
            columns.append(Column("over classes", key, IOU_RULES[key], over_classes=True))
    notes = []
    if results.task == "classification" and results.regions in ("boxes", "masks"):
        published = {**paper.IOU, "EveryPixel": paper.EVERY_PIXEL}
        columns.append(PaperColumn(published, noted=["EveryPixel"]))
        notes.append(_PAPER)
    if "iou/fixed_share" in rules and "threshold_rule" in results.protocol:
        notes.append(f"Fixed share of pixels: {results.protocol['threshold_rule'].removeprefix('top_fraction: ')}.")
    if "iou/oracle" in rules:
        notes.append(
            "The oracle has seen the region it is judged by: it bounds what a rule could reach, and is no result."
        )
    table = measure_table(results, "Mean IoU of every method, by threshold rule", columns, notes=notes)
    return section(
        "iou",
        "Overlap with the marked regions (Table 1)",
        "A map is cut into marked and unmarked pixels by a threshold rule; IoU is the area that the marked pixels "
        f"and the {_region(results)} share, divided by the area that either covers, 0 for none and 1 for the "
        "same. A mean IoU says little by itself and changes with the rule: compare it, within a column, with the "
        "controls below.",
        table,
        explained(results, rules),
    )


def _by_class(results: Results) -> Element | None:
    keys = [key for key in IOU_RULES if any(results.has(key, class_name=name) for name in results.class_names)]
    if not keys or len(results.class_names) < 2:
        return None
    tables = [_class_table(results, key) for key in keys]
    rest = [
        details(f"The same with the threshold rule: {IOU_RULES[key]}", t) for key, t in zip(keys, tables, strict=True)
    ]
    if results.detectors:
        title, what = "Overlap by detector (Table 2)", "detector: zones scored 0 or 1, zones scored 2, zones scored 3"
    else:
        title, what = "Overlap by class (Table 3)", "class"
    return section(
        "classes",
        title,
        f"The same overlap for each {what}. Classes with large regions score higher whatever the map, so read down a "
        "column, against the controls, and not along a row.",
        tables[0],
        *rest[1:],
    )


def _class_table(results: Results, key: str) -> Element:
    kind = "detector" if results.detectors else "class"
    shown = [name for name in results.class_names if results.has(key, class_name=name)]
    columns: list[Column | PaperColumn] = []
    for name in shown:
        columns.append(
            Column("here" if results.detectors else name, key, _DETECTORS[name] if results.detectors else "", name)
        )
        if results.detectors:
            columns.append(PaperColumn(paper.DETECTOR_IOU[name], group=_DETECTORS[name]))
    means = [Column(f"mean over {_unit(results)}", key), Column("mean over classes", key, over_classes=True)]
    columns += [column for column in means if results.has(key, **column.of)]
    rows = []
    if not results.detectors and set(shown) & set(paper.CLASS_IOU["BCE"]):
        for loss, figures_ in paper.CLASS_IOU.items():
            by_place = {k: figures_[name] for k, name in enumerate(shown) if name in figures_}
            # the paper's mean is over boxes of all eight classes
            rows.append(PaperRow(f"InverseIBA, {loss}", {**by_place, len(shown): paper.BOX_MEAN[loss]}))
    caption = f"IoU by {kind}, threshold rule: {IOU_RULES[key]}"
    note = f"A single {kind} carries no mark: it has few patients, and of many columns some would be marked by chance."
    return measure_table(results, caption, columns, paper_rows=rows, notes=[note])


def _other(results: Results, curves: Sequence[Curve], looks: Mapping[str, Look]) -> Element | None:
    keys = results.keys(*OTHER)
    blocks: list[Element] = []
    if keys:
        columns = [Column(results.title(key), key) for key in keys]
        blocks.append(measure_table(results, "Measures without a threshold", columns))
    accuracy = [
        Column(key.split("/")[1], key, words) for prefix, words in ACCURACY.items() for key in results.keys(f"{prefix}")
    ]
    if accuracy:
        blocks.append(measure_table(results, f"Share of {_unit(results)} found", accuracy))
    drawn = curve_figure(
        {"IoU at every threshold": curves_named(curves, "iou_at_level", results)},
        looks,
        "threshold, from the map's least to its greatest value",
        "mean IoU",
        "IoU at every threshold, the same one for all images, with 95 % band, {n}.",
    )
    if drawn is not None:
        blocks.append(drawn)
    if not blocks:
        return None
    return section(
        "place",
        "Other measures of place",
        "Does the strongest pixel lie in the region (pointing game), how much of the map's weight lies in it, and in "
        f"what share of {_unit(results)} does the overlap reach a given size? All lie between 0 and 1, higher is "
        "better, and large regions are easy to hit, which the controls show.",
        *blocks,
        explained(results, [*keys, *(column.key for column in accuracy)]),
    )


def severity(results: Results, curves: Sequence[Curve], looks: Mapping[str, Look]) -> Element | None:
    """The section about zone scores; None without data."""
    keys = results.keys(*SEVERITY)
    blocks: list[Element] = []
    if keys:
        columns: list[Column | PaperColumn] = [Column(SEVERITY[key], key) for key in keys]
        notes = []
        if results.task == "regression" and "severity_correlation" in keys:
            columns.append(PaperColumn(paper.SEVERITY, noted=["RegressionIBA_DV"]))
            notes.append("* The paper names its MSE loss twice; its second figure is shown with the deviation loss.")
        blocks.append(measure_table(results, "Correlation of maps with the zone scores", columns, notes=notes))
    drawn = curve_figure(
        {"Relevance by zone score": curves_named(curves, "relevance_by_score", results)},
        looks,
        "Brixia score of the zone",
        "mean relevance of the zone",
        "Mean of the map over zones of each score, with 95 % band, {n} zones; a map that follows severity rises.",
    )
    if drawn is not None:
        blocks.append(drawn)
    if not blocks:
        return None
    return section(
        "severity",
        "Severity",
        "Six zones of the lungs carry scores from 0 to 3; Pearson's correlation asks whether the map is "
        "stronger where the score is higher, 1 being perfect and 0 chance. Over all pixels it also rewards the mere "
        "outline of the lungs, which the lung-field control shows; within the zones of an image it does not.",
        *blocks,
        explained(results, keys),
    )


def _unit(results: Results) -> str:
    return {"boxes": "boxes", "masks": "masks"}.get(results.regions or "", "maps")


def _region(results: Results) -> str:
    return {"boxes": "box of the finding", "masks": "mask of the finding", "zones": "lung zones of the score"}.get(
        results.regions or "", "region"
    )
