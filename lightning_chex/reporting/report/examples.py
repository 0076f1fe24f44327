"""Maps over X-rays: pictures in 8 bits for the eye, regions drawn over them as lines."""

import base64
import io
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_chex.reporting.evaluation import ExampleRow
from lightning_chex.reporting.pictures import overlay
from lightning_chex.reporting.report.markup import element
from lightning_chex.reporting.report.outline import outline
from lightning_chex.reporting.report.palette import Look
from lightning_chex.reporting.report.parts import section
from lightning_chex.reporting.results import Results, number

LONGEST = 256
"""Sides of pictures on the page, in pixels: larger ones are reduced."""

_QUANTILE = 0.995  # of the map's strengths takes full colour: one stray pixel must not leave the others black
_COLORS = 200  # of a picture's palette: a third of the bytes, no difference to the eye


def examples(rows: Sequence[ExampleRow], results: Results, looks: Mapping[str, Look]) -> Element | None:
    """The section of pictures, a block a row in the order given; None without rows."""
    if not rows:
        return None
    first = rows[0]
    return section(
        "examples",
        "Example maps",
        f"Nobody chose these images: they are the best, the median and the worst by {first.measure} of "
        f"{first.ranked_by}. Bright colours mark the strongest pixels of each map, scaled to itself, blue its "
        "negative ones; a map that is the same everywhere leaves the X-ray as it is, and controls have dashed frames.",
        *(_row(row, results, looks) for row in rows),
    )


def _row(row: ExampleRow, results: Results, looks: Mapping[str, Look]) -> Element:
    grey = np.round(255 * torch.nan_to_num(row.image.float()).clamp(0, 1).numpy()).astype(np.uint8)
    plain = np.repeat(grey[..., None], 3, axis=2)
    names = [name for name in [*results.names, *row.maps] if name in row.maps]
    cells = [_picture(row, plain, "X-ray", None, "xray", scores=True)]
    for name in dict.fromkeys(names):
        kind = "control" if name in looks and looks[name].control else "method"
        value = f"{row.measure} {number(row.iou[name])}" if name in row.iou else None
        cells.append(_picture(row, colored(row.image, row.maps[name]), name, value, kind))
    return element(
        "div",
        element("h3", f"{row.rank.capitalize()}: {row.target_name}", element("small", f" {_facts(row, results)}")),
        element("div", *cells, class_="strip"),
        class_="example",
    )


def _facts(row: ExampleRow, results: Results) -> str:
    if results.task == "regression":
        return f"predicted {row.prediction:.1f}, scored {row.truth:g}"
    return f"predicted probability {row.prediction:.2f}, labelled {'positive' if row.truth else 'negative'}"


def colored(image: Tensor, saliency: Tensor) -> NDArray[np.uint8]:
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
    top = float(np.quantile(strength.numpy(), _QUANTILE)) or float(strength.max())
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


def _picture(
    row: ExampleRow, rgb: NDArray[np.uint8], name: str, value: str | None, kind: str, scores: bool = False
) -> Element:
    height, width = rgb.shape[:2]
    marks: list[Element] = []
    if row.region is not None:
        marks.append(element("path", d=outline(row.region), class_="region"))
    if row.zones is not None:
        marks += _zones(row, scores)
    for x1, y1, x2, y2 in row.boxes.tolist() if row.boxes is not None else []:
        marks.append(element("rect", x=x1, y=y1, width=max(x2 - x1, 0.0), height=max(y2 - y1, 0.0), class_="region"))
    drawn = element(
        "svg",
        element("image", href=_data(rgb), width=width, height=height),
        *marks,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=f"{name}, {row.rank} by {row.measure}",
    )
    caption = element("figcaption", element("span", name), element("small", value) if value else None)
    return element("figure", drawn, caption, class_=kind)


def _zones(row: ExampleRow, scores: bool) -> list[Element]:
    made: list[Element] = []
    for zone, score in zip(row.zones if row.zones is not None else [], row.scores or [], strict=True):
        made.append(element("path", d=outline(zone), class_=f"region z{min(3, max(0, round(float(score))))}"))
        places = zone.nonzero().float()
        if scores and len(places):
            y, x = places.mean(0).tolist()
            size = 0.08 * max(zone.shape)
            made.append(element("text", f"{float(score):g}", x=x, y=y + 0.35 * size, font_size=size, class_="score"))
    return made


def _data(rgb: NDArray[np.uint8]) -> str:
    """A picture as the address of itself, reduced to a palette and to the page's size."""
    picture = Image.fromarray(rgb)
    if max(picture.size) > LONGEST:
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.quantize(_COLORS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
