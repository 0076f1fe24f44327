"""Sections on whether maps lie on the findings and grow with severity: the paper's Tables 1 to 3 and more."""

from collections.abc import Mapping, Sequence

from lightning_chex.class_names import DETECTED_SCORES
from lightning_chex.report.page import paper
from lightning_chex.report.page.charts import Style, curve_figure
from lightning_chex.report.page.tables import Column, PaperColumn, PaperRow, measure_table
from lightning_chex.report.page.views import Block, Section, Table, curves_named, explained
from lightning_chex.report.results import Curve, Results

_PAPER_NOTE = (
    "The paper's figures are means over boxes with a threshold rule it does not state. * Not in the paper: on its "
    f"984 NIH boxes a map that marks every pixel scores {paper.EVERY_PIXEL}, the mean area of a box. Figures near it "
    "carry no localisation."
)

_DETECTORS = {name: f"detector {'/'.join(map(str, scores))}" for name, scores in DETECTED_SCORES.items()}

_UNITS = {"boxes": "boxes", "masks": "masks"}

_REGIONS = {"boxes": "box of the finding", "masks": "mask of the finding", "zones": "lung zones of the score"}


def localization(results: Results, curves: Sequence[Curve], styles: Mapping[str, Style]) -> list[Section | None]:
    """Build all sections about localisation; None for those without data."""
    return [_overall(results), _by_class(results), _other(results, curves, styles)]


def _overall(results: Results) -> Section | None:
    rules = results.threshold_rules
    if not rules:
        return None
    columns: list[Column | PaperColumn] = []
    for key, rule in rules.items():
        columns.append(Column(f"over {_unit(results)}", key, rule))
        if results.has(key, over_classes=True):
            columns.append(Column("over classes", key, rule, over_classes=True))
    notes = []
    if results.task == "classification" and results.regions in ("boxes", "masks"):
        published = {**paper.IOU, "EveryPixel": paper.EVERY_PIXEL}
        columns.append(PaperColumn(published, with_asterisk=["EveryPixel"]))
        notes.append(_PAPER_NOTE)
    if "iou/fixed_share" in rules and "threshold_rule" in results.protocol:
        notes.append(f"Fixed share of pixels: {results.protocol['threshold_rule'].removeprefix('top_fraction: ')}.")
    if "iou/oracle" in rules:
        notes.append(
            "The oracle chooses its threshold with the region known: it is an upper bound of what a rule could reach, "
            "not a result."
        )
    return Section(
        "iou",
        "Overlap with the marked regions (Table 1)",
        [measure_table(results, "Mean IoU of every method, by threshold rule", columns, notes=notes)],
        explanations=explained(results, rules),
        words={"region": _REGIONS.get(results.regions or "", "region")},
    )


def _by_class(results: Results) -> Section | None:
    keys = []
    for key in results.threshold_rules:
        if any(results.has(key, class_name=name) for name in results.class_names):
            keys.append(key)
    if not keys or len(results.class_names) < 2:
        return None
    tables = [_class_table(results, key) for key in keys]
    title = "Overlap by class (Table 3)"
    unit = "class"
    if results.has_detectors:
        title = "Overlap by detector (Table 2)"
        unit = "detector: zones scored 0 or 1, zones scored 2, zones scored 3"
    return Section("classes", title, tables[:1], tables[1:], words={"unit": unit})


def _class_table(results: Results, key: str) -> Table:
    kind = "detector" if results.has_detectors else "class"
    shown = [name for name in results.class_names if results.has(key, class_name=name)]
    columns: list[Column | PaperColumn] = []
    for name in shown:
        if results.has_detectors:
            columns.append(Column("here", key, _DETECTORS[name], name))
            columns.append(PaperColumn(paper.DETECTOR_IOU[name], group=_DETECTORS[name]))
        else:
            columns.append(Column(name, key, class_name=name))
    means = [Column(f"mean over {_unit(results)}", key), Column("mean over classes", key, over_classes=True)]
    columns += [column for column in means if column.has_value(results)]
    rows = []
    if not results.has_detectors and set(shown) & set(paper.CLASS_IOU["BCE"]):
        for loss, published in paper.CLASS_IOU.items():
            by_column = {index: published[name] for index, name in enumerate(shown) if name in published}
            # the paper's mean is over boxes of all eight classes, not over classes: it belongs to the column after them
            by_column[len(shown)] = paper.BOX_MEAN[loss]
            rows.append(PaperRow(f"InverseIBA, {loss}", by_column))
    rule = results.threshold_rules[key]
    note = f"A single {kind} carries no mark: it has few patients, and of many columns some would be marked by chance."
    return measure_table(
        results,
        f"IoU by {kind}, threshold rule: {rule}",
        columns,
        paper_rows=rows,
        notes=[note],
        summary=f"The same with the threshold rule: {rule}",
    )


def _other(results: Results, curves: Sequence[Curve], styles: Mapping[str, Style]) -> Section | None:
    blocks: list[Block] = []
    for table, caption in (
        ("place", "Measures without a threshold"),
        ("found", f"Share of {_unit(results)} found"),
    ):
        columns = [Column.of_measure(results, key) for key in results.keys_with_value(table)]
        if columns:
            blocks.append(measure_table(results, caption, columns))
    figure = curve_figure(
        {"IoU at every threshold": curves_named(curves, "iou_at_level", results)},
        styles,
        "threshold, from the map's least to its greatest value",
        "mean IoU",
        "IoU at every threshold, the same one for all images, with 95 % band, {n}.",
    )
    if figure is not None:
        blocks.append(figure)
    if not blocks:
        return None
    return Section(
        "place",
        "Other measures of place",
        blocks,
        explanations=explained(results, [*results.keys_with_value("place"), *results.keys_with_value("found")]),
        words={"unit": _unit(results)},
    )


def severity(results: Results, curves: Sequence[Curve], styles: Mapping[str, Style]) -> Section | None:
    """Build the section about zone scores; None without data."""
    keys = results.keys_with_value("severity")
    blocks: list[Block] = []
    if keys:
        columns: list[Column | PaperColumn] = [Column.of_measure(results, key) for key in keys]
        notes = []
        if results.task == "regression" and "severity_correlation" in keys:
            columns.append(PaperColumn(paper.SEVERITY, with_asterisk=["RegressionIBA_DV"]))
            notes.append("* The paper names its MSE loss twice; its second figure is shown with the deviation loss.")
        blocks.append(measure_table(results, "Correlation of maps with the zone scores", columns, notes=notes))
    figure = curve_figure(
        {"Relevance by zone score": curves_named(curves, "relevance_by_score", results)},
        styles,
        "Brixia score of the zone",
        "mean relevance of the zone",
        "Mean of the map over zones of each score, with 95 % band, {n} zones; a map that follows severity rises.",
    )
    if figure is not None:
        blocks.append(figure)
    if not blocks:
        return None
    return Section("severity", "Severity", blocks, explanations=explained(results, keys))


def _unit(results: Results) -> str:
    return _UNITS.get(results.regions or "", "maps")
