"""The report of an evaluation: one HTML page that a reader understands without the paper."""

from lightning_chex.reporting.report.page import write_report

__all__ = ["write_report"]
