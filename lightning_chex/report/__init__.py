"""Pictures, charts, tables and the HTML report: pure functions from results to files."""

from lightning_chex.estimates import Estimate, Summary
from lightning_chex.report.checkpoint_comparison import CheckpointComparison
from lightning_chex.report.dashboard import TABLE_COLUMNS, amounts, levels, pictures_of, table_rows
from lightning_chex.report.evaluation_tables import DIFFERENCE_COLUMNS, EVALUATION_COLUMNS, evaluation_tables
from lightning_chex.report.explanation import BITS_NOTE, Explanation
from lightning_chex.report.frames import source_window, to_source_frame
from lightning_chex.report.logger_adapter import LoggerAdapter, Picture
from lightning_chex.report.loggers import adapters_of
from lightning_chex.report.lungs import lung_overlay, write_lung_sheet
from lightning_chex.report.overview import draw_sample, overview_text, write_overview
from lightning_chex.report.page import ExampleRow, write_comparison, write_report
from lightning_chex.report.pictures import figure, overlay, sheet, signed_overlay, write_figure, write_pictures
from lightning_chex.report.reliability import reliability_diagram
from lightning_chex.report.results import Curve, Measure, Results, format_number, without_nan
from lightning_chex.report.rle import encode_mask
from lightning_chex.report.scale import shared_scale_limit
from lightning_chex.report.terminal import comparison_text, next_steps, results_text, summary

__all__ = [
    "BITS_NOTE",
    "LoggerAdapter",
    "CheckpointComparison",
    "Curve",
    "DIFFERENCE_COLUMNS",
    "EVALUATION_COLUMNS",
    "Estimate",
    "ExampleRow",
    "Explanation",
    "Measure",
    "Picture",
    "Results",
    "Summary",
    "TABLE_COLUMNS",
    "amounts",
    "adapters_of",
    "comparison_text",
    "draw_sample",
    "encode_mask",
    "evaluation_tables",
    "figure",
    "levels",
    "lung_overlay",
    "format_number",
    "next_steps",
    "overlay",
    "overview_text",
    "pictures_of",
    "reliability_diagram",
    "results_text",
    "sheet",
    "signed_overlay",
    "source_window",
    "summary",
    "table_rows",
    "to_source_frame",
    "shared_scale_limit",
    "without_nan",
    "write_comparison",
    "write_figure",
    "write_lung_sheet",
    "write_overview",
    "write_pictures",
    "write_report",
]
