"""The result files of an evaluation: ``results.json``, ``curves.csv`` and ``per_image.csv``."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_chex.attribution.description import MethodDescription
from lightning_chex.csv_text import csv_lines
from lightning_chex.evaluation.assembly import Assembly, Row
from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.files import write_whole
from lightning_chex.report import Curve, Measure, Results, without_nan


def results_of(
    assembly: Assembly,
    kind: str,
    left_out: Mapping[str, str],
    protocol: Mapping[str, Any],
    descriptions: Mapping[str, MethodDescription],
) -> Results:
    """Build the content of ``results.json``.

    Args:
        assembly: of the records.
        kind: regions that maps were compared with.
        left_out: why methods are missing, by name.
        protocol: see `Plan.protocol`.
        descriptions: of methods and controls, by name.
    """
    summaries = {name: assembly.measures(name) for name in assembly.names}
    used = {key for measures in summaries.values() for key in measures}
    return Results(
        task="classification" if assembly.class_names else "regression",
        class_names=assembly.class_names,
        regions=kind if "iou/oracle" in used else None,
        measures=_declarations(used, protocol["data"]["tuning_images"]),
        methods={name: summaries[name] for name in assembly.methods},
        controls={name: summaries[name] for name in assembly.controls},
        differences=assembly.differences(),
        left_out=dict(left_out),
        protocol=without_nan(protocol),
        descriptions=dict(descriptions),
    )


def _declarations(used: set[str], tuning_images: int) -> dict[str, Measure]:
    """Declarations of the measures that have a value, in their order."""
    measures: dict[str, Measure] = {key: measure for key, measure in MEASURES.items() if key in used}
    if "iou/tuned" in measures:
        tuned = measures["iou/tuned"]
        # a reader cannot judge a tuned threshold without the number of images behind it
        explanation = f"{tuned.explanation} Here that rests on {tuning_images} images."
        measures["iou/tuned"] = replace(tuned, explanation=explanation)
    return measures


def write_curves(path: Path, curves: Iterable[Curve]) -> None:
    """Write ``curves.csv``, one row per point."""
    columns = ["method", "curve", "x", "value", "ci_low", "ci_high", "n"]
    rows = []
    for curve in curves:
        for x, mean in zip(curve.x, curve.means, strict=True):
            cells = (curve.method, curve.name, x, mean.value, mean.ci_low, mean.ci_high, mean.n)
            rows.append(dict(zip(columns, cells, strict=True)))
    _write_table(path, rows, columns)


def write_cases(path: Path, rows: Iterable[Row]) -> None:
    """Write ``per_image.csv``; measures without a value are left empty."""
    _write_table(path, list(rows), ["image", "target", "method", "prediction", "truth", *MEASURES])


def _write_table(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    write_whole(path, csv_lines([columns, *cells]), sync=True)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file completely or not at all."""
    write_whole(path, json.dumps(content, indent=1) + "\n", sync=True)
