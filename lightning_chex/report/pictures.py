"""Saliency maps as pictures: overlays, one figure an explanation, and a sheet of many."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_chex.files import safe_name, write_whole
from lightning_chex.report.explanation import BITS, BITS_NOTE, Explanation

COLORMAP = colormaps["inferno"]
BOX_COLOR = "#35e0d0"
SHEET_LIMIT = 24

TEXT_SIZE = 10
"""Points of the text of a sheet; at 80 dpi a pair of pictures is 416 pixels wide, and this is 11 pixels."""

LABEL_HEIGHT = 0.05
"""Size of the letters of a label, as a share of the picture's width: 15 pixels where it is shown 300 pixels wide."""

LABEL_FONT = findfont("DejaVu Sans")  # comes with matplotlib

TITLE_LENGTH = 30
"""Characters of this size over one picture of a sheet."""

SIGNED_QUANTILE = 0.995  # of the absolute values has the full colour: a single outlier must not darken all others


def overlay(image: Tensor, saliency: Tensor, top: float | None = None) -> NDArray[np.uint8]:
    """Lay a map over its X-ray; where the map is zero, the X-ray is unchanged.

    Args:
        image: grey values in [0, 1], (H, W).
        saliency: >= 0, (H, W).
        top: the value that takes the brightest colour. None: that of the strongest pixel; a flat map then shows only
            faintly.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    grey = image.clamp(0, 1).numpy()[..., None].repeat(3, axis=2)
    strength = (saliency / (saliency.max().clamp(min=1e-12) if top is None else top)).clamp(0, 1).numpy()
    colour = COLORMAP(strength)[..., :3]
    # a flat map does not localise: scaled to full colour it would look like a strong one
    contrast = 1 - strength.mean() if top is None else 1.0
    opacity = 0.8 * contrast * strength[..., None]
    return np.round(255 * (grey * (1 - opacity) + colour * opacity)).astype(np.uint8)


def signed_overlay(image: Tensor, saliency: Tensor) -> NDArray[np.uint8]:
    """Lay a map over its X-ray, negative values in blue; the strongest half per cent of pixels share the full colour.

    Args:
        image: grey values in [0, 1], (H, W).
        saliency: (H, W), any scale; what is not finite counts as 0.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    known = torch.nan_to_num(saliency.float(), posinf=0.0, neginf=0.0)
    strength = known.abs()
    # numpy: torch's quantile refuses large maps
    top = float(np.quantile(strength.numpy(), SIGNED_QUANTILE)) or float(strength.max())
    shown = overlay(torch.nan_to_num(image.float()), strength.clamp(max=top))
    negative = (known < 0).numpy()
    if negative.any():
        grey = image.clamp(0, 1).numpy()[..., None].repeat(3, axis=2)
        share = (strength / max(top, 1e-12)).clamp(0, 1).numpy()
        opacity = 0.8 * (1 - share.mean()) * share[..., None]
        blue = colormaps["winter"](share)[..., :3]
        cold = np.round(255 * (grey * (1 - opacity) + blue * opacity)).astype(np.uint8)
        shown = np.where(negative[..., None], cold, shown)
    return shown


def figure(explanation: Explanation, top: float | None = None) -> Figure:
    """X-ray and map side by side, expert boxes in both, and a colour bar in the map's unit; ``top``: see `overlay`."""
    made = Figure(figsize=(9.2, 4.6), layout="constrained")
    FigureCanvasAgg(made)
    left, right = made.subplots(1, 2)
    _draw_xray(left, explanation)
    _draw_map(right, explanation, top)
    left.set_title(explanation.image_id, fontsize=TEXT_SIZE, parse_math=False)  # names may hold dollars
    right.set_title(explanation.caption, fontsize=TEXT_SIZE, parse_math=False)
    scale, extend = _scale(top or float(explanation.saliency.max())), "max" if top else "neither"
    bar = made.colorbar(scale, ax=right, label=explanation.unit, shrink=0.9, extend=extend)
    if top:
        _show_limit(bar.ax.set_yticks, bar.ax.get_yticks(), top)
    if explanation.unit == BITS:
        made.supxlabel(BITS_NOTE, fontsize=6.5)
    return made


def sheet(explanations: Sequence[Explanation], title: str, top: float | None = None) -> Figure:
    """Many explanations on one page, each X-ray beside its map; at most 24, the first ones.

    With ``top`` (see `overlay`) a colour bar says how much the colours stand for.
    """
    shown = explanations[:SHEET_LIMIT]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    height = 2.85 * rows + (0.4 if top is None else 1.25)
    made = Figure(figsize=(5.2 * columns, height), layout="constrained")
    FigureCanvasAgg(made)
    made.suptitle(title, fontsize=11)
    if shown[0].unit == BITS:
        made.supxlabel(fill(BITS_NOTE, 84 * columns), fontsize=7)
    axes = made.subplots(rows, 2 * columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, explanation in enumerate(shown):
        row, column = divmod(i, columns)
        _draw_xray(axes[row, 2 * column], explanation)
        _draw_map(axes[row, 2 * column + 1], explanation, top)
        heading = f"{i}  {explanation.target_name}, {explanation.true_label}"
        _write_title(axes[row, 2 * column], heading, loc="left")
        _write_title(axes[row, 2 * column + 1], "  ".join(explanation.figures), loc="right")
    if top is not None:
        label = f"{shown[0].unit}: full colour from {top:g} on, one scale for all maps here"
        bar = made.colorbar(
            _scale(top),
            ax=axes,
            orientation="horizontal",
            extend="max",
            fraction=0.22 / height,
            shrink=0.6,
            aspect=60,
        )
        bar.set_label(label, fontsize=TEXT_SIZE)
        bar.ax.tick_params(labelsize=TEXT_SIZE)
        _show_limit(bar.ax.set_xticks, bar.ax.get_xticks(), top)
    return made


def _write_title(axis: Axes, text: str, loc: Literal["left", "right"]) -> None:
    """Write a title over a panel of a sheet, in smaller letters if it would be wider than the panel."""
    size = TEXT_SIZE * min(1.0, TITLE_LENGTH / max(len(text), 1))
    axis.set_title(text, fontsize=size, loc=loc, parse_math=False)


def _show_limit(set_ticks: Callable[..., Any], ticks: Iterable[float], top: float) -> None:
    """Mark the end of a colour bar with its value; ticks so close to it that they would overlap are left out."""
    kept = [tick for tick in ticks if tick < 0.93 * top]
    set_ticks([*kept, top], [*(f"{tick:g}" for tick in kept), f"≥ {top:g}"])


def write_pictures(
    explanations: Sequence[Explanation],
    folder: Path,
    title: str,
    top: float | None = None,
    dpi: float = 80,
    suffix: str = ".png",
) -> Path:
    """Write a picture of each explanation into ``folder`` and a sheet of them beside it.

    Args:
        explanations: of one method.
        folder: where to; it is made.
        title: of the sheet.
        top: see `overlay`.
        dpi: pixels per inch: a sheet of three columns is 15.6 inches wide.
        suffix: ``.png``, or ``.pdf`` or ``.svg`` whose lines and letters stay sharp at every size.

    Returns:
        The sheet's path, ``folder`` with the suffix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for i, explanation in enumerate(explanations):
        name = re.sub(r"[^\w.-]+", "_", f"{i:03d}_{explanation.image_id}__{explanation.target_name}")
        if len(name.encode()) > 200:  # a file name has 255 bytes at the most
            name = safe_name(name)
        write_figure(folder / f"{name}{suffix}", figure(explanation, top), dpi)
    path = folder.with_name(f"{folder.name}{suffix}")
    write_figure(path, sheet(explanations, title, top), dpi)
    return path


def with_label(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Put a line of white text on a black band above a picture.

    Args:
        picture: RGB, uint8 (H, W, 3).
        text: one line; its letters are `LABEL_HEIGHT` of the width, or as large as the width allows.

    Returns:
        RGB, uint8 (H + band, W, 3).
    """
    width = picture.shape[1]
    size = max(LABEL_HEIGHT * width, 1.0)
    text = " ".join(text.split())
    font = ImageFont.truetype(LABEL_FONT, size)
    room = 0.98 * width
    if font.getlength(text) > room:
        size = max(size * room / font.getlength(text), 1.0)
        font = ImageFont.truetype(LABEL_FONT, size)
    band = Image.new("RGB", (width, math.ceil(1.4 * LABEL_HEIGHT * width)))
    ImageDraw.Draw(band).text((0.01 * width, band.height / 2), text, font=font, fill="white", anchor="lm")
    return np.concatenate([np.asarray(band), picture])


def with_note(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Write white text on a black ground into the upper left corner of a picture, whose size stays.

    Args:
        picture: RGB, uint8 (H, W, 3).
        text: a few words; their letters are `LABEL_HEIGHT` of the width.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    drawing = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawing)
    font = ImageFont.truetype(LABEL_FONT, max(LABEL_HEIGHT * picture.shape[1], 1.0))
    pen.rectangle(pen.textbbox((2, 2), text, font=font), fill="black")
    pen.text((2, 2), text, font=font, fill="white")
    return np.asarray(drawing)


def write_figure(path: Path, made: Figure, dpi: float) -> None:
    """Write a figure in the format its suffix names, whole or not at all."""
    write_whole(path, lambda file: made.savefig(file, format=path.suffix[1:], dpi=dpi))


def _scale(top: float) -> ScalarMappable:
    return ScalarMappable(Normalize(0, max(top, 1e-12)), COLORMAP)


def _draw_xray(axis: Axes, explanation: Explanation) -> None:
    axis.imshow(explanation.image.numpy(), cmap="gray", vmin=0, vmax=1)
    _draw_boxes(axis, explanation.boxes)


def _draw_map(axis: Axes, explanation: Explanation, top: float | None) -> None:
    axis.imshow(overlay(explanation.image, explanation.saliency, top))
    _draw_boxes(axis, explanation.boxes)


def _draw_boxes(axis: Axes, boxes: Tensor) -> None:
    axis.set_axis_off()
    for x1, y1, x2, y2 in boxes.tolist():
        # a pixel's centre is at its index for imshow, at its index plus a half for boxes
        axis.add_patch(
            Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=BOX_COLOR, linewidth=1.2)
        )
