"""Film strips: how the maps of the same images change over a run, one row an image, one column a validation.

The frames of a method lie in a folder, ``00000094.npz`` for the validation at step 94: small pictures and maps with
their figures, without names of images. A strip can be drawn from them at any time.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lightning_chex.files import write_whole
from lightning_chex.report.explanation import BITS, Explanation
from lightning_chex.report.pictures import BOX_COLOR, COLORMAP, overlay
from lightning_chex.report.scale import shared_scale_limit

SIDE = 112
"""Pixels of a cell; a map keeps its mean value when it is made so small."""

MAX_ROWS = 24
"""Largest number of images; of more the first ones are shown."""

MAX_COLUMNS = 16
"""Largest number of validations; of more some at equal distances are shown, the first and the last included."""

_CELL = 1.35
"""Side of a cell on the page, in inches."""


@dataclass(frozen=True)
class Frame:
    """The maps of one validation, in the order of their numbers.

    Attributes:
        epoch: of the validation.
        step: of the validation.
        keys: of the maps, the same at every validation: ``Explanation.mark`` or ``place`` of the image, and the name
            of the target.
        names: of the targets.
        images: grey values, uint8 (N, SIDE, SIDE).
        maps: float16 (N, SIDE, SIDE).
        boxes: number of the map and corners of each expert box, float32 (M, 5).
        figures: the model's prediction, the map's sum, its IoU (NaN where it is unknown), and 1 for an empty map,
            float32 (N, 4); (N, 3) in files that earlier versions wrote.
        unit: of the maps.
    """

    epoch: int
    step: int
    keys: Sequence[str]
    names: Sequence[str]
    images: NDArray[np.uint8]
    maps: NDArray[np.float16]
    boxes: NDArray[np.float32]
    figures: NDArray[np.float32]
    unit: str


def write_frame(folder: Path, explanations: Sequence[Explanation], epoch: int, step: int) -> None:
    """Write the explanations of a validation by one method as a frame of its film strip; the folder is made."""
    shown = explanations[:MAX_ROWS]
    keys = []
    images = []
    maps = []
    boxes = []
    figures = []
    for row, explanation in enumerate(shown):
        keys.append(f"{explanation.mark or explanation.place} {explanation.target_name}")
        images.append(np.round(255 * _small(explanation.image.clamp(0, 1))).astype(np.uint8))
        maps.append(_small(explanation.saliency).astype(np.float16))
        boxes += _boxes(row, explanation)
        iou = np.nan if explanation.iou is None else explanation.iou
        figures.append([explanation.prediction, explanation.bits, iou, float(explanation.empty)])
    content = {
        "epoch": np.array(epoch),
        "keys": np.array(keys, np.str_),
        "names": np.array([explanation.target_name for explanation in shown], np.str_),
        "images": np.stack(images),
        "maps": np.stack(maps),
        "boxes": np.array(boxes, np.float32).reshape(-1, 5),
        "said": np.array(figures, np.float32),
        "unit": np.array(shown[0].unit, np.str_),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **content)  # type: ignore[arg-type]  # numpy takes the names for options of its own
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{step:08d}.npz", file.getvalue())


def read_frames(folder: Path) -> list[Frame]:
    """Read the frames that a strip shows, in the order of their steps."""
    paths = sorted(folder.glob("*.npz"))
    count = min(len(paths), MAX_COLUMNS)
    chosen = np.unique(np.linspace(0, len(paths) - 1, count).round().astype(int))
    return [_read_frame(paths[index]) for index in chosen]


def film_strip(frames: Sequence[Frame], title: str, top: float | None = None) -> Figure:
    """Draw the images of the last frame over all frames, on one scale.

    Args:
        frames: of one method, at least one.
        title: of the page.
        top: the value with the full colour, that of the run. None: chosen from the maps of the frames.
    """
    last = frames[-1]
    if top is None:
        top = _scale_limit(frames)
    rows = len(last.keys)
    columns = len(frames) + 1
    strip = Figure(figsize=(max(columns * _CELL + 1.1, 4.8), rows * _CELL + 1.45))
    FigureCanvasAgg(strip)
    width = strip.get_figwidth()
    height = strip.get_figheight()
    left = 1.0 / width
    bottom = 0.9 / height
    axis = strip.add_axes((left, bottom, columns * _CELL / width, 1 - bottom - 0.55 / height))
    # one picture of all cells: an axis for each of them would take seconds to draw
    page = _draw_cells(axis, frames, top)
    _draw_boxes(axis, last, columns)
    axis.imshow(page, aspect="auto", extent=(0, columns * SIDE, rows * SIDE, 0))
    _draw_grid(axis, frames, rows)
    strip.suptitle(title, fontsize=10, x=0.01, y=1 - 0.06 / height, ha="left", va="top", parse_math=False)
    bar_axis = strip.add_axes((left, 0.6 / height, min(0.9 - left, 4 / width), 0.008))
    scale = ScalarMappable(Normalize(0, top), COLORMAP)
    bar = strip.colorbar(scale, cax=bar_axis, orientation="horizontal", extend="max")
    bar.set_label(
        f"{last.unit}, one scale for all, full colour from {top:g} on\nin each picture: prediction, total, IoU",
        size=8,
        x=0,
        ha="left",
    )
    bar_axis.set_box_aspect(0.03)
    bar_axis.tick_params(labelsize=8)
    return strip


def _scale_limit(frames: Sequence[Frame]) -> float:
    """The value with the full colour, from the maps of the frames; 1 if none of them marks a pixel."""
    limit = 0.0
    for frame in frames:
        limit = shared_scale_limit(torch.from_numpy(frame.maps.astype(np.float32)), frame.unit, limit)
    return limit or 1.0


def _draw_cells(axis: Axes, frames: Sequence[Frame], top: float) -> NDArray[np.uint8]:
    """Write the names and figures of all cells on the axis, and return their pictures as one."""
    last = frames[-1]
    page = np.full((len(last.keys) * SIDE, (len(frames) + 1) * SIDE, 3), 255, np.uint8)
    for row, key in enumerate(last.keys):
        _fill(page, row, 0, last.images[row][..., None])
        name = f"{row}\n{last.names[row]}"
        axis.text(-6, (row + 0.5) * SIDE, name, ha="right", va="center", size=8, parse_math=False)
        for column, frame in enumerate(frames, 1):
            if key not in frame.keys:
                continue  # the image was not explained at this validation
            index = list(frame.keys).index(key)
            image = torch.from_numpy(frame.images[index] / 255).float()
            saliency = torch.from_numpy(frame.maps[index]).float()
            _fill(page, row, column, overlay(image, saliency, top))
            ground = {"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 1}
            axis.text(
                column * SIDE + 3,
                (row + 1) * SIDE - 4,
                _figures_text(frame, index),
                color="white",
                size=7,
                va="bottom",
                bbox=ground,
            )
    return page


def _draw_boxes(axis: Axes, frame: Frame, columns: int) -> None:
    """Draw the expert boxes into every column."""
    for row, x1, y1, x2, y2 in frame.boxes.tolist():
        for column in range(columns):
            corner = (column * SIDE + x1, row * SIDE + y1)
            axis.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=BOX_COLOR, linewidth=0.6))


def _draw_grid(axis: Axes, frames: Sequence[Frame], rows: int) -> None:
    """Separate the cells by white lines, and write epoch and step over each column."""
    columns = len(frames) + 1
    axis.set_xlim(0, columns * SIDE)
    axis.set_ylim(rows * SIDE, 0)
    axis.hlines(np.arange(1, rows) * SIDE, 0, columns * SIDE, colors="white", linewidth=1.5)
    axis.vlines(np.arange(1, columns) * SIDE, 0, rows * SIDE, colors="white", linewidth=1.5)
    axis.xaxis.tick_top()
    headings = ["X-ray"]
    for frame in frames:
        headings.append(f"epoch {frame.epoch}\nstep {frame.step}")
    axis.set_xticks((np.arange(columns) + 0.5) * SIDE, headings)
    axis.set_yticks([])
    axis.tick_params(length=0, labelsize=8)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _figures_text(frame: Frame, index: int) -> str:
    """Prediction, amount and IoU of one map, to be written on its picture."""
    prediction, total, iou, *empty = (float(value) for value in frame.figures[index])
    amount = f"{total:.0f} bits" if frame.unit == BITS else f"sum {total:.2g}"
    # a prediction is a score or a probability here: frames do not tell which
    lines = [f"{prediction:.2f}  {amount}"]
    if any(empty):
        lines.insert(0, "empty map")
    if not np.isnan(iou):
        lines.append(f"IoU {iou:.2f}")
    return "\n".join(lines)


def _boxes(row: int, explanation: Explanation) -> list[list[float]]:
    """The boxes of an explanation on a picture of `SIDE` pixels, each with the row before its corners."""
    height, width = explanation.saliency.shape
    boxes = []
    for x1, y1, x2, y2 in explanation.boxes.tolist():
        boxes.append([row, x1 * SIDE / width, y1 * SIDE / height, x2 * SIDE / width, y2 * SIDE / height])
    return boxes


def _fill(page: NDArray[np.uint8], row: int, column: int, picture: NDArray[np.uint8]) -> None:
    page[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = picture


def _small(picture: Tensor) -> NDArray[np.float32]:
    return F.interpolate(picture[None, None].float(), (SIDE, SIDE), mode="area")[0, 0].numpy()


def _read_frame(path: Path) -> Frame:
    with np.load(path) as content:  # arrays alone: a file without pickles cannot run code
        return Frame(
            epoch=int(content["epoch"]),
            step=int(path.stem),
            keys=content["keys"].tolist(),
            names=content["names"].tolist(),
            images=content["images"],
            maps=content["maps"],
            boxes=content["boxes"],
            figures=content["said"],
            unit=str(content["unit"]),
        )
