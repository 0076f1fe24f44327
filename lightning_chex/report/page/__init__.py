"""The report of an evaluation: one HTML page, readable without knowing the paper."""

from lightning_chex.report.page.checkpoints import write_comparison
from lightning_chex.report.page.examples import ExampleRow
from lightning_chex.report.page.page import write_report

__all__ = ["ExampleRow", "write_comparison", "write_report"]
