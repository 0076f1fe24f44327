"""The report of an evaluation: one HTML page, readable without knowing the paper."""

from lightning_chex.reporting.report.checkpoints import write_comparison
from lightning_chex.reporting.report.examples import ExampleRow
from lightning_chex.reporting.report.page import write_report

__all__ = ["ExampleRow", "write_comparison", "write_report"]
