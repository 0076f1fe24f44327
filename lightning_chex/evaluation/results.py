"""The result files of an evaluation: ``results.json``, ``curves.csv`` and ``per_image.csv``."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_chex.csv_text import csv_lines
from lightning_chex.evaluation.assembly import Assembly, Row
from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.files import write_whole
from lightning_chex.method_description import MethodDescription
from lightning_chex.reporting import Curve, Results, without_nan


def results_of(
    assembly: Assembly,
    kind: str,
    left_out: Mapping[str, str],
    protocol: Mapping[str, Any],
    descriptions: Mapping[str, MethodDescription],
) -> Results:
    """Assemble what ``results.json`` holds.

    Args:
        assembly: of the records.
        kind: what maps were judged by.
        left_out: why methods are missing, by name.
        protocol: see `Plan.account`.
        descriptions: of methods and controls, by name.
    """
    found = {name: assembly.measures(name) for name in assembly.names}
    used = {key for measures in found.values() for key in measures}
    tuned, images = MEASURES["iou/tuned"], protocol["data"]["tuning_images"]
    counted = {"iou/tuned": replace(tuned, explanation=f"{tuned.explanation} Here that rests on {images} images.")}
    return Results(
        task="classification" if assembly.class_names else "regression",
        class_names=assembly.class_names,
        regions=kind if "iou/oracle" in used else None,
        measures={key: measure for key, measure in (MEASURES | counted).items() if key in used},
        methods={name: found[name] for name in assembly.methods},
        controls={name: found[name] for name in assembly.controls},
        differences=assembly.differences(),
        left_out=dict(left_out),
        protocol=without_nan(protocol),
        descriptions=dict(descriptions),
    )


def write_curves(path: Path, curves: Iterable[Curve]) -> None:
    """Write ``curves.csv``, one row a place."""
    columns = ["method", "curve", "x", "value", "ci_low", "ci_high", "n"]
    rows = [
        dict(zip(columns, (each.method, each.name, x, m.value, m.ci_low, m.ci_high, m.n), strict=True))
        for each in curves
        for x, m in zip(each.x, each.means, strict=True)
    ]
    _write_table(path, rows, columns)


def write_cases(path: Path, rows: Iterable[Row]) -> None:
    """Write ``per_image.csv``; what was not measured is left empty."""
    _write_table(path, list(rows), ["image", "target", "method", "prediction", "truth", *MEASURES])


def _write_table(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    write_whole(path, csv_lines([columns, *cells]), sync=True)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, json.dumps(content, indent=1) + "\n", sync=True)
