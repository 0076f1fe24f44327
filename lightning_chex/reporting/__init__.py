"""Pictures, dashboards and tables: pure functions from results to files."""

from lightning_chex.reporting.evaluation import Curve, ExampleRow
from lightning_chex.reporting.evaluation_text import results_text
from lightning_chex.reporting.explanation import Explanation
from lightning_chex.reporting.pictures import figure, overlay, sheet, write_pictures
from lightning_chex.reporting.report import write_report

__all__ = [
    "Curve",
    "ExampleRow",
    "Explanation",
    "figure",
    "overlay",
    "results_text",
    "sheet",
    "write_pictures",
    "write_report",
]
