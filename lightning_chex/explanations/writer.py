"""Output of a run's explanations: pictures, film strips, curves and tables, in files and through its loggers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl

from lightning_chex.csv_text import csv_lines
from lightning_chex.data.contract import Stage
from lightning_chex.explanations.arranging import check_choice
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
    "train/loss": "min", "val/loss": "min", "val/mae": "min",
    "val/auroc": "max", "val/ap": "max", "val/dice": "max", "val/pearson": "max",
}  # fmt: skip
"""Which value of a scalar stands for a whole run in a logger's table of runs; the IoU of each method comes to them."""

Scale = Literal["run", "map"]
Format = Literal["png", "pdf", "svg"]


class Showing:
    """Shows the explanations of each validation; process 0 does all of it.

    Args:
        name: of the table.
        methods: names of the methods.
        rule: which pixels of a map count as marked, for people.
        files: write files into the run's folder.
        scale: ``run`` for one scale of the colours of a method over the whole run; ``map`` for one each map.
        dpi: of pictures in files.
        suffix: their format.
    """

    def __init__(
        self, name: str, methods: Sequence[str], rule: str, files: bool, scale: Scale, dpi: int, suffix: Format
    ) -> None:
        check_choice("scale", scale, Scale)
        check_choice("picture_format", suffix, Format)
        if dpi < 1:
            raise ValueError(f"picture_dpi={dpi} must be at least 1")
        self.name, self.methods, self.rule, self.files = name, methods, rule, files
        self.scale, self.dpi, self.suffix = scale, dpi, suffix
        self.tops: dict[str, float] = {}
        self.rows: list[list[Any]] = []
        self.scores: list[dict[str, float]] = []
        self.sheets: list[Path] = []
        self._adapters: list[LoggerAdapter] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the colour-scale limits, table rows and curves so far as plain values."""
        return {"tops": self.tops, "rows": self.rows, "scores": self.scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        self.tops = dict(state["tops"])
        # rows of an earlier version lack the last columns
        self.rows = [[*row, *[None] * (len(TABLE_COLUMNS) - len(row))] for row in state["rows"]]
        self.scores = [dict(row) for row in state["scores"]]

    def begin(self, trainer: pl.Trainer) -> None:
        """Begin a training; tell the loggers, before anything is logged, which value of each scalar is the best."""
        if trainer.global_step == 0:
            self.tops, self.rows, self.scores = {}, [], []
        if trainer.is_global_zero and not is_trial(trainer):
            best = BEST | {f"val/{method}_iou": "max" for method in self.methods}
            self._adapters = adapters_of(trainer.loggers, best)

    def show(
        self, trainer: pl.Trainer, explanations: Sequence[Explanation], scores: Mapping[str, float], stage: Stage
    ) -> None:
        """Write and log what one validation or test has explained, and how that scores."""
        if not explanations or not trainer.is_global_zero:
            return
        if self._adapters is None:
            self.begin(trainer)
        prefix, step, epoch = ("val" if stage == "validate" else "test"), trainer.global_step, trainer.current_epoch
        during_fit = trainer.state.fn == "fit"
        label = f"epoch_{epoch:03d}" if during_fit else stage
        rows: list[list[Any]] = []
        self.sheets = []
        for method in self.methods:
            own = [e for e in explanations if e.method == method]
            if not own:
                continue
            top = None
            if self.scale == "run":
                top = shared_scale_limit([e.saliency for e in own], own[0].unit, self.tops.get(method, 0.0)) or None
            if top and during_fit:
                self.tops[method] = top
            if self.files:
                self._write(trainer, own, label, top)
            for adapter in self._adapters or ():
                adapter.pictures(f"{prefix}/{method}_maps", pictures_of(own, top), step)
            rows += table_rows(own, epoch, step, self.rule)
        for adapter in self._adapters or ():
            adapter.table(f"{prefix}/{self.name}_table", TABLE_COLUMNS, rows, step)
        if during_fit:
            self._remember(trainer, rows, scores)

    def end(self, trainer: pl.Trainer) -> None:
        """Hand the film strips, the curves and the table of the whole training to the loggers."""
        if not (self.files and self.rows and trainer.is_global_zero):
            return
        folder = run_folder(trainer) / "explanations"
        made = {f"val/{method}_film": self._film(folder, method) for method in self.methods}
        made |= {f"val/{self.name}_curves": folder / self._named("curves.png")}
        made |= {f"val/{self.name}_course": folder / self._named("table.csv")}
        for key, path in made.items():
            for adapter in (self._adapters or ()) if path.is_file() else ():
                adapter.file(key, path, trainer.global_step)

    def _write(self, trainer: pl.Trainer, own: Sequence[Explanation], label: str, top: float | None) -> None:
        """Write the pictures of one method, and its film strip up to now."""
        method, step, epoch = own[0].method, trainer.global_step, trainer.current_epoch
        title = f"{method}, {label.replace('_', ' ')}, step {step}"
        folder = run_folder(trainer) / "explanations"
        place = folder / (label if method == "iba" else f"{label}_{method}")
        self.sheets.append(write_pictures(own, place, title, top, self.dpi, f".{self.suffix}"))
        if trainer.state.fn == "fit":
            frames = folder / "frames" / method
            if not self.rows:  # of another training in the same folder
                for path in frames.glob("*.npz"):
                    path.unlink()
            write_frame(frames, own, epoch, step)
            strip = film_strip(read_frames(frames), f"{method}: the same images over the training", top)
            write_figure(self._film(folder, method), strip, dpi=max(self.dpi, 110))

    def _remember(self, trainer: pl.Trainer, rows: list[list[Any]], scores: Mapping[str, float]) -> None:
        """Add to the table and curves of the training; a validation that is repeated replaces itself."""
        step = trainer.global_step
        self.rows = [row for row in self.rows if row[TABLE_COLUMNS.index("step")] != step] + rows
        self.scores = [row for row in self.scores if row["step"] != step]
        self.scores.append({"step": step, "epoch": trainer.current_epoch, **scores})
        if self.files:
            folder = run_folder(trainer) / "explanations"
            write_whole(folder / self._named("table.csv"), csv_lines([TABLE_COLUMNS, *self.rows]))
            if scores:
                curves = iou_curves(self.scores, self.methods, self.rule)
                write_figure(folder / self._named("curves.png"), curves, dpi=max(self.dpi, 110))

    def _film(self, folder: Path, method: str) -> Path:
        return folder / ("film.png" if method == "iba" else f"film_{method}.png")

    def _named(self, file: str) -> str:
        return file if self.name == "iba" else f"{Path(file).stem}_{self.name}{Path(file).suffix}"
