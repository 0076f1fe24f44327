"""Do maps grow where the lung was scored worse? The paper's correlation, and relevance by zone score."""

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from lightning_chex.reporting.evaluation import Curve
from lightning_chex.reporting.report import paper
from lightning_chex.reporting.report.charts import legend, line_chart
from lightning_chex.reporting.report.palette import Look
from lightning_chex.reporting.report.parts import counted_of, curves_named, explained, figures, section
from lightning_chex.reporting.report.tables import Column, PaperColumn, measure_table
from lightning_chex.reporting.results import Results

SEVERITY = {
    "severity_correlation": "map with zone scores, over pixels",
    "zone_correlation": "within an image, over its zones",
}


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
    drawn = curves_named(curves, "relevance_by_score", results)
    if drawn:
        chart = line_chart(
            drawn, looks, "Relevance by zone score", "Brixia score of the zone", "mean relevance of the zone"
        )
        blocks.append(
            figures(
                f"Mean of the map over zones of each score, with 95 % band, {counted_of(drawn)} zones; a map that "
                "follows severity rises.",
                [chart],
                legend([curve.method for curve in drawn], looks),
            )
        )
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
