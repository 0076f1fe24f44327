"""TensorBoard: each picture under a tag of its own, so that its slider runs over the steps; tables as text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_chex.report.logger_adapter import Picture


class Adapter:
    """Adapter of a ``TensorBoardLogger``.

    Args:
        logger: the ``TensorBoardLogger``.
        best: not used: TensorBoard has no summaries.
    """

    def __init__(self, logger: Any, best: Mapping[str, str]) -> None:
        self._writer = logger.experiment

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Log pictures with all that is on them, ``KEY/00`` and so on, and their captions as text."""
        for number, picture in enumerate(pictures):
            self._writer.add_image(f"{key}/{number:02d}", picture.drawn, step, dataformats="HWC")
        self._writer.add_text(f"{key}/captions", "\n\n".join(picture.caption for picture in pictures), step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """Log a table as Markdown."""
        lines = [_markdown_row(columns), _markdown_row(["---"] * len(columns))]
        for row in rows:
            lines.append(_markdown_row([_cell(value) for value in row]))
        self._writer.add_text(key, "\n".join(lines), step)

    def file(self, key: str, path: Path, step: int) -> None:
        """Log a PNG as a picture; other files stay where they are."""
        if path.suffix == ".png":
            with Image.open(path) as image:
                self._writer.add_image(key, np.asarray(image.convert("RGB")), step, dataformats="HWC")


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    # a bar would end the cell
    return str(value).replace("|", "\\|")
