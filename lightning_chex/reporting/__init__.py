"""Pictures, dashboards and tables: pure functions from results to files."""

from lightning_chex.reporting.explanation import Explanation
from lightning_chex.reporting.pictures import figure, overlay, sheet, write_pictures

__all__ = ["Explanation", "figure", "overlay", "sheet", "write_pictures"]
