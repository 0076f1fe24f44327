"""Film strips: how the maps of the same images change over a run, one row an image, one column a validation.

The frames of a method lie in a folder, ``00000094.npz`` for the validation at step 94: small pictures and maps with
what is said of them, no names. A strip can be drawn from them at any time.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
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

MOST_ROWS, MOST_COLUMNS = 24, 16
"""Of more images the first ones are shown, of more validations some at equal distances, the first and last included."""


@dataclass(frozen=True)
class Frame:
    """The maps of one validation, in the order of their numbers.

    Attributes:
        epoch: of the validation.
        step: of the validation.
        keys: what each map is of: ``Explanation.mark``, or the place of the image, and the target's name.
        names: of the targets.
        images: grey values, uint8 (N, SIDE, SIDE).
        maps: float16 (N, SIDE, SIDE).
        boxes: number of the map and corners of each expert box, float32 (M, 5).
        said: the model's prediction, the map's sum, its IoU, NaN where it is unknown, and 1 for an empty map, float32
            (N, 4); (N, 3) in files that earlier versions wrote.
        unit: of the maps.
    """

    epoch: int
    step: int
    keys: Sequence[str]
    names: Sequence[str]
    images: NDArray[np.uint8]
    maps: NDArray[np.float16]
    boxes: NDArray[np.float32]
    said: NDArray[np.float32]
    unit: str


def write_frame(folder: Path, explanations: Sequence[Explanation], epoch: int, step: int) -> None:
    """Keep what a film strip needs of a validation's explanations by one method; the folder is made."""
    shown = explanations[:MOST_ROWS]
    content = {
        "epoch": np.array(epoch),
        "keys": np.array([f"{e.mark or e.place} {e.target_name}" for e in shown], np.str_),
        "names": np.array([e.target_name for e in shown], np.str_),
        "images": np.stack([np.round(255 * _small(e.image.clamp(0, 1))).astype(np.uint8) for e in shown]),
        "maps": np.stack([_small(e.saliency).astype(np.float16) for e in shown]),
        "boxes": np.array([box for i, e in enumerate(shown) for box in _boxes(i, e)], np.float32).reshape(-1, 5),
        "said": np.array(
            [[e.prediction, e.bits, np.nan if e.iou is None else e.iou, float(e.empty)] for e in shown], np.float32
        ),
        "unit": np.array(shown[0].unit, np.str_),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **content)  # type: ignore[arg-type]  # numpy takes the names for options of its own
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{step:08d}.npz", file.getvalue())


def read_frames(folder: Path) -> list[Frame]:
    """The frames that a strip shows, in the order of their steps."""
    paths = sorted(folder.glob("*.npz"))
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MOST_COLUMNS)).round().astype(int))
    return [_frame(paths[i]) for i in chosen]


def film_strip(frames: Sequence[Frame], title: str, top: float | None = None) -> Figure:
    """Draw the images of the last frame over all frames, on one scale.

    Args:
        frames: of one method, at least one.
        title: of the page.
        top: the value with the full colour, that of the run. None: chosen from the maps of the frames.
    """
    last = frames[-1]
    if top is None:
        top = 0.0
        for frame in frames:
            top = shared_scale_limit(torch.from_numpy(frame.maps.astype(np.float32)), frame.unit, top)
        top = top or 1.0
    rows, columns = len(last.keys), len(frames) + 1
    page = np.full((rows * SIDE, columns * SIDE, 3), 255, np.uint8)
    cell = 1.35  # inches
    made = Figure(figsize=(max(columns * cell + 1.1, 4.8), rows * cell + 1.45))
    FigureCanvasAgg(made)
    left, bottom = 1.0 / made.get_figwidth(), 0.9 / made.get_figheight()
    axis = made.add_axes((left, bottom, columns * cell / made.get_figwidth(), 1 - bottom - 0.55 / made.get_figheight()))
    for row, key in enumerate(last.keys):
        _fill(page, row, 0, last.images[row][..., None])
        axis.text(
            -6, (row + 0.5) * SIDE, f"{row}\n{last.names[row]}", ha="right", va="center", size=8, parse_math=False
        )
        for column, frame in enumerate(frames, 1):
            if key in frame.keys:
                at = list(frame.keys).index(key)
                image, saliency = torch.from_numpy(frame.images[at] / 255).float(), torch.from_numpy(frame.maps[at])
                _fill(page, row, column, overlay(image, saliency.float(), top))
                place = (column * SIDE + 3, (row + 1) * SIDE - 4)
                shade = {"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "pad": 1}
                axis.text(*place, _said(frame, at), color="white", size=7, va="bottom", bbox=shade)
    for number, x1, y1, x2, y2 in last.boxes.tolist():
        for column in range(columns):
            corner = (column * SIDE + x1, number * SIDE + y1)
            axis.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=BOX_COLOR, linewidth=0.6))
    axis.imshow(page, aspect="auto", extent=(0, columns * SIDE, rows * SIDE, 0))
    axis.set_xlim(0, columns * SIDE)
    axis.set_ylim(rows * SIDE, 0)
    axis.hlines(np.arange(1, rows) * SIDE, 0, columns * SIDE, colors="white", linewidth=1.5)
    axis.vlines(np.arange(1, columns) * SIDE, 0, rows * SIDE, colors="white", linewidth=1.5)
    axis.xaxis.tick_top()
    axis.set_xticks((np.arange(columns) + 0.5) * SIDE, ["X-ray", *(f"epoch {f.epoch}\nstep {f.step}" for f in frames)])
    axis.set_yticks([])
    axis.tick_params(length=0, labelsize=8)
    for spine in axis.spines.values():
        spine.set_visible(False)
    made.suptitle(title, fontsize=10, x=0.01, y=1 - 0.06 / made.get_figheight(), ha="left", va="top", parse_math=False)
    bar_axis = made.add_axes((left, 0.6 / made.get_figheight(), min(0.9 - left, 4 / made.get_figwidth()), 0.008))
    bar = made.colorbar(
        ScalarMappable(Normalize(0, top), COLORMAP), cax=bar_axis, orientation="horizontal", extend="max"
    )
    bar.set_label(
        f"{last.unit}, one scale for all, full colour from {top:g} on\nin each picture: prediction, total, IoU",
        size=8,
        x=0,
        ha="left",
    )
    bar_axis.set_box_aspect(0.03)
    bar_axis.tick_params(labelsize=8)
    return made


def _said(frame: Frame, at: int) -> str:
    prediction, total, iou, *empty = (float(value) for value in frame.said[at])
    amount = f"{total:.0f} bits" if frame.unit == BITS else f"sum {total:.2g}"
    # a prediction is a score or a probability here: frames do not tell
    first_line = f"{prediction:.2f}  {amount}"
    if any(empty):
        first_line = f"empty map\n{first_line}"
    return first_line if np.isnan(iou) else f"{first_line}\nIoU {iou:.2f}"


def _boxes(number: int, explanation: Explanation) -> list[list[float]]:
    """The boxes of an explanation on a picture of `SIDE` pixels, each behind its number."""
    height, width = explanation.saliency.shape
    return [
        [number, x1 * SIDE / width, y1 * SIDE / height, x2 * SIDE / width, y2 * SIDE / height]
        for x1, y1, x2, y2 in explanation.boxes.tolist()
    ]


def _fill(page: NDArray[np.uint8], row: int, column: int, picture: NDArray[np.uint8]) -> None:
    page[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = picture


def _small(picture: Tensor) -> NDArray[np.float32]:
    return F.interpolate(picture[None, None].float(), (SIDE, SIDE), mode="area")[0, 0].numpy()


def _frame(path: Path) -> Frame:
    with np.load(path) as kept:  # arrays alone: without pickles nothing in it can run
        return Frame(
            epoch=int(kept["epoch"]),
            step=int(path.stem),
            keys=kept["keys"].tolist(),
            names=kept["names"].tolist(),
            images=kept["images"],
            maps=kept["maps"],
            boxes=kept["boxes"],
            said=kept["said"],
            unit=str(kept["unit"]),
        )
