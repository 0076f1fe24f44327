"""Output of a run's explanations: pictures, film strips, curves and tables, in files and through its loggers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl

from lightning_chex.csv_text import csv_lines
from lightning_chex.data.contract import Stage
from lightning_chex.explanations.arguments import check_choice
from lightning_chex.files import write_whole
from lightning_chex.lightning_private import is_trial
from lightning_chex.report import (
    TABLE_COLUMNS,
    Explanation,
    LoggerAdapter,
    adapters_of,
    pictures_of,
    shared_scale_limit,
    table_rows,
    write_pictures,
)
from lightning_chex.report.curves import iou_curves
from lightning_chex.report.film import film_strip, read_frames, write_frame
from lightning_chex.report.pictures import write_figure
from lightning_chex.runs.run_folder import run_folder

BEST = {
    "train/loss": "min",
    "val/loss": "min",
    "val/mae": "min",
    "val/auroc": "max",
    "val/ap": "max",
    "val/dice": "max",
    "val/pearson": "max",
}
"""The value of each scalar that a logger's table of runs shows for a whole run; the IoU of each method is added."""

Scale = Literal["run", "map"]
Format = Literal["png", "pdf", "svg"]


@dataclass(frozen=True)
class PictureSettings:
    """Settings of the pictures, named as the options of `IBACallback`.

    Args:
        save_pictures: write files into the run's folder.
        scale: ``run`` for one colour scale of a method over the whole run; ``map`` for one each map.
        picture_dpi: pixels per inch of the files.
        picture_format: format of the sheets and single pictures.

    Raises:
        ValueError: a value is unknown or out of its range.
    """

    save_pictures: bool = True
    scale: Scale = "run"
    picture_dpi: int = 80
    picture_format: Format = "png"

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, Scale)
        check_choice("picture_format", self.picture_format, Format)
        if self.picture_dpi < 1:
            raise ValueError(f"picture_dpi={self.picture_dpi} must be at least 1")


class ExplanationWriter:
    """Writes and logs the explanations of each validation and test; only process 0 does anything.

    Args:
        name: of the table.
        methods: names of the methods.
        rule: text that tells people which pixels of a map count as marked.
        settings: of the pictures.

    Attributes:
        tops: upper limit of the colour scale of each method so far.
        rows: rows of the table so far.
        scores: localisation at each validation so far, with ``step`` and ``epoch``.
        sheets: the last sheets of pictures written, one a method.
    """

    def __init__(self, name: str, methods: Sequence[str], rule: str, settings: PictureSettings) -> None:
        self.name = name
        self.methods = methods
        self.rule = rule
        self.settings = settings
        self.tops: dict[str, float] = {}
        self.rows: list[list[Any]] = []
        self.scores: list[dict[str, float]] = []
        self.sheets: list[Path] = []
        self._adapters: list[LoggerAdapter] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the colour-scale limits, table rows and scores so far as plain values."""
        return {"tops": self.tops, "rows": self.rows, "scores": self.scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.tops = dict(state["tops"])
        # rows of an earlier version lack the last columns
        self.rows = [[*row, *[None] * (len(TABLE_COLUMNS) - len(row))] for row in state["rows"]]
        self.scores = [dict(row) for row in state["scores"]]

    def start_training(self, trainer: pl.Trainer) -> None:
        """Reset the state of an earlier training, and tell the loggers which value of each scalar is the best.

        Loggers need that before anything is logged.
        """
        if trainer.global_step == 0:
            self.tops = {}
            self.rows = []
            self.scores = []
        if trainer.is_global_zero and not is_trial(trainer):
            best = BEST | {f"val/{method}_iou": "max" for method in self.methods}
            self._adapters = adapters_of(trainer.loggers, best)

    def write(
        self, trainer: pl.Trainer, explanations: Sequence[Explanation], scores: Mapping[str, float], stage: Stage
    ) -> None:
        """Write and log the explanations of one validation or test, and their scores."""
        if not explanations or not trainer.is_global_zero:
            return
        if self._adapters is None:
            self.start_training(trainer)
        prefix = "val" if stage == "validate" else "test"
        rows: list[list[Any]] = []
        self.sheets = []
        for method in self.methods:
            of_method = [explanation for explanation in explanations if explanation.method == method]
            if of_method:
                self._write_method(trainer, of_method, stage, prefix)
                rows += table_rows(of_method, trainer.current_epoch, trainer.global_step, self.rule)
        for adapter in self._adapters or ():
            adapter.table(f"{prefix}/{self.name}_table", TABLE_COLUMNS, rows, trainer.global_step)
        if _is_fit(trainer):
            self._add_to_course(trainer, rows, scores)

    def end_training(self, trainer: pl.Trainer) -> None:
        """Hand the film strips, the curves and the table of the whole training to the loggers."""
        if not (self.settings.save_pictures and self.rows and trainer.is_global_zero):
            return
        folder = _folder(trainer)
        files = {f"val/{method}_film": self._film(folder, method) for method in self.methods}
        files[f"val/{self.name}_curves"] = folder / self._file_name("curves.png")
        files[f"val/{self.name}_course"] = folder / self._file_name("table.csv")
        for key, path in files.items():
            if not path.is_file():  # there are no curves without scores
                continue
            for adapter in self._adapters or ():
                adapter.file(key, path, trainer.global_step)

    def _write_method(
        self, trainer: pl.Trainer, explanations: Sequence[Explanation], stage: Stage, prefix: str
    ) -> None:
        """Write and log the pictures of one method."""
        method = explanations[0].method
        top = self._scale_limit(explanations)
        if top and _is_fit(trainer):
            self.tops[method] = top
        if self.settings.save_pictures:
            label = f"epoch_{trainer.current_epoch:03d}" if _is_fit(trainer) else stage
            self._write_files(trainer, explanations, label, top)
        for adapter in self._adapters or ():
            adapter.pictures(f"{prefix}/{method}_maps", pictures_of(explanations, top), trainer.global_step)

    def _scale_limit(self, explanations: Sequence[Explanation]) -> float | None:
        """Upper limit of the colour scale; None for a scale of each map, and where all maps are empty."""
        if self.settings.scale == "map":
            return None
        before = self.tops.get(explanations[0].method, 0.0)
        maps = [explanation.saliency for explanation in explanations]
        return shared_scale_limit(maps, explanations[0].unit, before) or None

    def _write_files(
        self, trainer: pl.Trainer, explanations: Sequence[Explanation], label: str, top: float | None
    ) -> None:
        """Write the pictures of one method, and its film strip up to now."""
        method = explanations[0].method
        title = f"{method}, {label.replace('_', ' ')}, step {trainer.global_step}"
        folder = _folder(trainer)
        picture_folder = folder / (label if method == "iba" else f"{label}_{method}")
        suffix = f".{self.settings.picture_format}"
        sheet = write_pictures(explanations, picture_folder, title, top, self.settings.picture_dpi, suffix)
        self.sheets.append(sheet)
        if not _is_fit(trainer):
            return
        frames = folder / "frames" / method
        if not self.rows:  # frames of another training in the same folder
            for path in frames.glob("*.npz"):
                path.unlink()
        write_frame(frames, explanations, trainer.current_epoch, trainer.global_step)
        strip = film_strip(read_frames(frames), f"{method}: the same images over the training", top)
        write_figure(self._film(folder, method), strip, dpi=self._figure_dpi)

    def _add_to_course(self, trainer: pl.Trainer, rows: list[list[Any]], scores: Mapping[str, float]) -> None:
        """Add to the table and curves of the training; a repeated validation replaces its earlier rows."""
        step = trainer.global_step
        step_column = TABLE_COLUMNS.index("step")
        self.rows = [row for row in self.rows if row[step_column] != step] + rows
        self.scores = [row for row in self.scores if row["step"] != step]
        self.scores.append({"step": step, "epoch": trainer.current_epoch, **scores})
        if not self.settings.save_pictures:
            return
        folder = _folder(trainer)
        write_whole(folder / self._file_name("table.csv"), csv_lines([TABLE_COLUMNS, *self.rows]))
        if scores:
            curves = iou_curves(self.scores, self.methods, self.rule)
            write_figure(folder / self._file_name("curves.png"), curves, dpi=self._figure_dpi)

    @property
    def _figure_dpi(self) -> int:
        """Strips and curves have small text, which is unreadable below 110."""
        return max(self.settings.picture_dpi, 110)

    def _film(self, folder: Path, method: str) -> Path:
        return folder / ("film.png" if method == "iba" else f"film_{method}.png")

    def _file_name(self, file: str) -> str:
        """Add the name of the callback, unless it is the default one, to a file's name."""
        if self.name == "iba":
            return file
        return f"{Path(file).stem}_{self.name}{Path(file).suffix}"


def _folder(trainer: pl.Trainer) -> Path:
    return run_folder(trainer) / "explanations"


def _is_fit(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit"
