"""Example images with the maps of every method: pictures in 8 bits, regions drawn over them as lines."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_chex.report.page.charts import Style
from lightning_chex.report.page.views import Box, Example, Outline, Picture, Score, Section
from lightning_chex.report.pictures import signed_overlay
from lightning_chex.report.results import Results, format_number

LONGEST = 256
"""Sides of pictures on the page, in pixels: larger ones are reduced."""

_COLORS = 200  # of a picture's palette: a third of the bytes, no difference to the eye


@dataclass(frozen=True)
class ExampleRow:
    """One explained image with the maps of every method, for the page; all tensors on the CPU.

    Attributes:
        rank: the place of the image in the order of ``ranked_by``'s IoU (or other measure).
        ranked_by: the method whose values chose the image.
        image: grey values in [0, 1], float (H, W).
        target_name: what is explained, for people.
        prediction: the model's probability of the class, or its score.
        truth: the label of the class, or the true score.
        maps: method or control -> map, float (H, W), any scale; negative values are drawn in blue.
        iou: method or control -> the IoU of its map; may be empty.
        boxes: expert boxes, (N, 4) x1, y1, x2, y2 in pixels; None without.
        region: the expert region, bool (H, W), filled; None without.
        zones: Brixia zones, bool (6, H, W); None without.
        scores: scores 0 to 3 of the zones; needed where there are zones.
        measure: what ``iou`` holds and the rank is by, for people.

    Raises:
        ValueError: an unknown rank, a shape that is not the image's, or zones without scores.
    """

    rank: Literal["best", "median", "worst"]
    ranked_by: str
    image: Tensor
    target_name: str
    prediction: float
    truth: float
    maps: Mapping[str, Tensor]
    iou: Mapping[str, float | None] = field(default_factory=dict)
    boxes: Tensor | None = None
    region: Tensor | None = None
    zones: Tensor | None = None
    scores: Sequence[float] | None = None
    measure: str = "IoU"

    def __post_init__(self) -> None:
        if self.rank not in ("best", "median", "worst"):
            raise ValueError(f"rank={self.rank!r} is unknown; choose best, median or worst")
        size = tuple(self.image.shape)
        drawn = dict(self.maps)
        if self.region is not None:
            drawn["region"] = self.region
        if self.zones is not None:
            if self.scores is None or len(self.scores) != len(self.zones):
                raise ValueError(f"scores={self.scores!r} do not match {len(self.zones)} zones: give one score a zone")
            drawn |= {f"zone {k}": zone for k, zone in enumerate(self.zones)}
        for name, each in drawn.items():
            if tuple(each.shape) != size:
                raise ValueError(f"{name!r} is {tuple(each.shape)}, but the image is {size}: resize it to the image")


def examples(rows: Sequence[ExampleRow], results: Results, styles: Mapping[str, Style]) -> Section | None:
    """Build the section of example images, in the order given; None without any."""
    if not rows:
        return None
    return Section(
        "examples",
        "Example maps",
        [_example(row, results, styles) for row in rows],
        words={"measure": rows[0].measure, "method": rows[0].ranked_by},
    )


def _example(row: ExampleRow, results: Results, styles: Mapping[str, Style]) -> Example:
    grey = np.round(255 * torch.nan_to_num(row.image.float()).clamp(0, 1).numpy()).astype(np.uint8)
    xray = np.repeat(grey[..., None], 3, axis=2)
    pictures = [_picture(row, xray, "X-ray", "", "xray", scores=True)]
    for name in dict.fromkeys([*results.names, *row.maps]):
        if name not in row.maps:
            continue
        css = "control" if name in styles and styles[name].control else "method"
        value = f"{row.measure} {format_number(row.iou[name])}" if name in row.iou else ""
        pictures.append(_picture(row, signed_overlay(row.image, row.maps[name]), name, value, css))
    return Example(f"{row.rank.capitalize()}: {row.target_name}", _facts(row, results), pictures)


def _facts(row: ExampleRow, results: Results) -> str:
    if results.task == "regression":
        return f"predicted {row.prediction:.1f}, scored {row.truth:g}"
    if math.isnan(row.truth):
        return f"predicted probability {row.prediction:.2f}, not labelled"
    return f"predicted probability {row.prediction:.2f}, labelled {'positive' if row.truth else 'negative'}"


def _picture(row: ExampleRow, rgb: NDArray[np.uint8], name: str, value: str, css: str, scores: bool = False) -> Picture:
    outlines = [] if row.region is None else [Outline(outline(row.region), "region")]
    written = []
    for zone, score in _scored_zones(row):
        outlines.append(Outline(outline(zone), f"region z{min(3, max(0, round(score)))}"))
        if scores and zone.any():
            written.append(_score(zone, score))
    return Picture(
        name,
        value,
        css,
        _data(rgb),
        width=rgb.shape[1],
        height=rgb.shape[0],
        label=f"{name}, {row.rank} by {row.measure}",
        outlines=outlines,
        boxes=[_box(corners) for corners in (row.boxes.tolist() if row.boxes is not None else [])],
        scores=written,
    )


def _scored_zones(row: ExampleRow) -> list[tuple[Tensor, float]]:
    if row.zones is None or row.scores is None:
        return []
    return [(zone, float(score)) for zone, score in zip(row.zones, row.scores, strict=True)]


def _score(zone: Tensor, score: float) -> Score:
    """Write a zone's score at its centre."""
    y, x = zone.nonzero().float().mean(0).tolist()
    size = 0.08 * max(zone.shape)
    # text stands on its baseline: about a third of its height lower it is centred
    return Score(f"{score:g}", f"{x:.6g}", f"{y + 0.35 * size:.6g}", f"{size:.6g}")


def _box(corners: Sequence[float]) -> Box:
    x1, y1, x2, y2 = corners
    return Box(f"{x1:.6g}", f"{y1:.6g}", f"{max(x2 - x1, 0.0):.6g}", f"{max(y2 - y1, 0.0):.6g}")


def _data(rgb: NDArray[np.uint8]) -> str:
    """A picture as a data URL, reduced to a palette and to the page's size."""
    picture = Image.fromarray(rgb)
    if max(picture.size) > LONGEST:
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.quantize(_COLORS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def outline(mask: Tensor) -> str:
    """Outline a region along pixel edges, neighbouring edges joined to one stroke.

    Args:
        mask: bool (H, W).

    Returns:
        Path data for SVG, in pixels; empty for an empty mask.

    Example:
        >>> import torch
        >>> outline(torch.tensor([[True, True]]))
        'M0 0H2M0 1H2M0 0V1M2 0V1'
    """
    padded = np.pad(mask.numpy().astype(bool), 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # above each row, (H + 1, W)
    down = (padded[1:-1, 1:] != padded[1:-1, :-1]).T  # left of each column, (W + 1, H)
    rows = [f"M{start} {y}H{end}" for y, start, end in _runs(across)]
    columns = [f"M{x} {start}V{end}" for x, start, end in _runs(down)]
    return "".join(rows + columns)


def _runs(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Line, beginning and end of every run of edges."""
    found = []
    for line in np.flatnonzero(edges.any(axis=1)).tolist():
        place = 0
        for inside, run in groupby(edges[line].tolist()):
            length = len(list(run))
            if inside:
                found.append((line, place, place + length))
            place += length
    return found
