"""Lightning's CSVLogger: pictures as PNG files and tables as CSV files beside its ``metrics.csv``."""

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_chex.csv_text import csv_lines
from lightning_chex.files import write_whole
from lightning_chex.report.logger_adapter import Picture


class Adapter:
    """Adapter of a ``CSVLogger``: writes into the folder of the run.

    Args:
        logger: the ``CSVLogger``.
        best: not used: the files hold all values.
    """

    def __init__(self, logger: Any, best: Mapping[str, str]) -> None:
        self._folder = Path(logger.log_dir)

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Write pictures with all that is on them, ``KEY/00000094/00.png`` and so on; ``captions.csv`` beside them."""
        for number, picture in enumerate(pictures):
            file = io.BytesIO()
            Image.fromarray(picture.drawn).save(file, format="png")
            write_whole(self._make_path(f"{key}/{step:08d}/{number:02d}.png"), file.getvalue())
        captions = [[number, picture.caption] for number, picture in enumerate(pictures)]
        self.table(f"{key}/{step:08d}/captions", ["number", "caption"], captions)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """Write ``KEY.csv``, or of a step ``KEY/00000094.csv``."""
        name = f"{key}.csv"
        if step is not None:
            name = f"{key}/{step:08d}.csv"
        path = self._make_path(name)
        write_whole(path, csv_lines([columns, *rows]))

    def file(self, key: str, path: Path, step: int) -> None:
        """Copy a file to ``KEY`` with its own ending."""
        shutil.copyfile(path, self._make_path(f"{key}{path.suffix}"))

    def _make_path(self, name: str) -> Path:
        """Path of a file in the folder of the run; its folder is made."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
