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
"""Largest number of explanations on a sheet."""

TEXT_SIZE = 10
"""Points of the text of a sheet; at 80 dpi a pair of pictures is 416 pixels wide, and this is 11 pixels."""

LABEL_HEIGHT = 0.05
"""Size of the letters of a label, as a share of the picture's width: 15 pixels where it is shown 300 pixels wide."""

LABEL_FONT = findfont("DejaVu Sans")  # comes with matplotlib

TITLE_LENGTH = 30
"""Characters of this size over one picture of a sheet."""

MAX_OPACITY = 0.8
"""Opacity of the strongest pixels of a map: the X-ray stays visible below them."""

SIGNED_QUANTILE = 0.995
"""Quantile of the absolute values that has the full colour: a single outlier must not darken all other pixels."""


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
    if top is None:
        strength = (saliency / saliency.max().clamp(min=1e-12)).clamp(0, 1).numpy()
        # a flat map does not localise: scaled to full colour it would look like a strong one
        contrast = 1 - strength.mean()
    else:
        strength = (saliency / top).clamp(0, 1).numpy()
        contrast = 1.0
    return _blend(image, COLORMAP(strength)[..., :3], MAX_OPACITY * contrast * strength)


def signed_overlay(image: Tensor, saliency: Tensor) -> NDArray[np.uint8]:
    """Lay a map over its X-ray, negative values in blue; the strongest half per cent of pixels share the full colour.

    Args:
        image: grey values in [0, 1], (H, W).
        saliency: (H, W), any scale; values that are not finite count as 0.

    Returns:
        RGB, uint8 (H, W, 3).
    """
    values = torch.nan_to_num(saliency.float(), posinf=0.0, neginf=0.0)
    strength = values.abs()
    # numpy: torch's quantile refuses large maps
    top = float(np.quantile(strength.numpy(), SIGNED_QUANTILE)) or float(strength.max())
    picture = overlay(torch.nan_to_num(image.float()), strength.clamp(max=top))
    negative = (values < 0).numpy()
    if negative.any():
        share = (strength / max(top, 1e-12)).clamp(0, 1).numpy()
        blue = _blend(image, colormaps["winter"](share)[..., :3], MAX_OPACITY * (1 - share.mean()) * share)
        picture = np.where(negative[..., None], blue, picture)
    return picture


def _blend(image: Tensor, color: NDArray[np.floating[Any]], opacity: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Lay colours (H, W, 3) over an X-ray (H, W), with the opacity of each pixel, (H, W)."""
    grey = image.clamp(0, 1).numpy()[..., None].repeat(3, axis=2)
    opacity = opacity[..., None]
    return np.round(255 * (grey * (1 - opacity) + color * opacity)).astype(np.uint8)


def figure(explanation: Explanation, top: float | None = None) -> Figure:
    """Draw X-ray and map side by side, with the expert boxes and a colour bar in the map's unit.

    Args:
        explanation: to draw.
        top: see `overlay`.
    """
    page = Figure(figsize=(9.2, 4.6), layout="constrained")
    FigureCanvasAgg(page)
    left, right = page.subplots(1, 2)
    _draw_xray(left, explanation)
    _draw_map(right, explanation, top)
    left.set_title(explanation.image_id, fontsize=TEXT_SIZE, parse_math=False)  # names may hold dollars
    right.set_title(explanation.caption, fontsize=TEXT_SIZE, parse_math=False)
    scale = _scale(top or float(explanation.saliency.max()))
    # an arrow at the end of the bar: values above the limit of the run have its colour too
    bar = page.colorbar(scale, ax=right, label=explanation.unit, shrink=0.9, extend="max" if top else "neither")
    if top:
        _show_limit(bar.ax.set_yticks, bar.ax.get_yticks(), top)
    if explanation.unit == BITS:
        page.supxlabel(BITS_NOTE, fontsize=6.5)
    return page


def sheet(explanations: Sequence[Explanation], title: str, top: float | None = None) -> Figure:
    """Draw many explanations on one page, each X-ray beside its map; at most 24, the first ones.

    Args:
        explanations: of one method, at least one.
        title: of the page.
        top: see `overlay`; with it a colour bar shows the values of the colours.
    """
    shown = explanations[:SHEET_LIMIT]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    # in inches; the colour bar needs room below the pictures
    height = 2.85 * rows + (0.4 if top is None else 1.25)
    page = Figure(figsize=(5.2 * columns, height), layout="constrained")
    FigureCanvasAgg(page)
    page.suptitle(title, fontsize=11)
    if shown[0].unit == BITS:
        page.supxlabel(fill(BITS_NOTE, 84 * columns), fontsize=7)
    axes = page.subplots(rows, 2 * columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, explanation in enumerate(shown):
        row, column = divmod(index, columns)
        left = axes[row, 2 * column]
        right = axes[row, 2 * column + 1]
        _draw_xray(left, explanation)
        _draw_map(right, explanation, top)
        _write_title(left, f"{index}  {explanation.target_name}, {explanation.true_label}", loc="left")
        _write_title(right, "  ".join(explanation.figures), loc="right")
    if top is not None:
        bar = page.colorbar(
            _scale(top),
            ax=axes,
            orientation="horizontal",
            extend="max",
            fraction=0.22 / height,
            shrink=0.6,
            aspect=60,
        )
        bar.set_label(f"{shown[0].unit}: full colour from {top:g} on, one scale for all maps here", fontsize=TEXT_SIZE)
        bar.ax.tick_params(labelsize=TEXT_SIZE)
        _show_limit(bar.ax.set_xticks, bar.ax.get_xticks(), top)
    return page


def _write_title(axis: Axes, text: str, loc: Literal["left", "right"]) -> None:
    """Write a title over a panel of a sheet, in smaller letters if it would be wider than the panel."""
    size = TEXT_SIZE * min(1.0, TITLE_LENGTH / max(len(text), 1))
    axis.set_title(text, fontsize=size, loc=loc, parse_math=False)


def _show_limit(set_ticks: Callable[..., Any], ticks: Iterable[float], top: float) -> None:
    """Mark the end of a colour bar with its value; ticks so close to it that they would overlap are left out."""
    positions = [tick for tick in ticks if tick < 0.93 * top]
    labels = [f"{tick:g}" for tick in positions]
    set_ticks([*positions, top], [*labels, f"≥ {top:g}"])


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
        folder: for the pictures; it is made.
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
        # most file systems allow 255 bytes; the suffix and that of an unfinished file have to fit too
        if len(name.encode()) > 200:
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


def write_figure(path: Path, page: Figure, dpi: float) -> None:
    """Write a figure in the format of the path's suffix, completely or not at all."""
    write_whole(path, lambda file: page.savefig(file, format=path.suffix[1:], dpi=dpi))


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
