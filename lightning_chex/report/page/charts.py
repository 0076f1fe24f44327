"""Charts as SVG, drawn by matplotlib; colours are CSS variables, so that they follow the page's light or dark mode.

Methods are solid, one colour and one marker each, the same in every chart; controls are grey, hollow and dashed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import IdentityTransform

from lightning_chex.attribution.description import COLORS
from lightning_chex.estimates import Estimate
from lightning_chex.report.page.svg import color, drawing, element, to_markup
from lightning_chex.report.page.views import Figure as ChartFigure
from lightning_chex.report.page.views import LegendItem, counted
from lightning_chex.report.results import Curve, Results

MARKERS = ("o", "s", "^", "D", "v", "P", "*", "p", "X")
CONTROL_MARKERS = ("o", "s", "^", "D")
DASHES = ((3.9, 2.2), (1.1, 2.2), (5.6, 1.7, 1.1, 1.7), (2.8, 1.1))

# size and margins of a chart in points; the page scales charts to its columns
_WIDTH = 480
_HEIGHT = 340
_LEFT = 62
_RIGHT = 14
_TOP = 30
_BOTTOM = 50

_MARKERS_PER_CURVE = 6
"""Enough to tell curves apart without colour."""

_MARKER_SCALES = {"D": 0.8, "*": 1.5, "^": 1.1, "v": 1.1, "P": 1.15, "X": 1.1}
"""Factors by which markers of these shapes look as large as the others."""

_LABEL_SIZE = 12.5
"""Font size of the names beside points."""

# costs of each square point that a label hides
_LABEL_COST = 40.0
_ERROR_BAR_COST = 10.0
_OUTSIDE_COST = 20.0

_LEADER_DISTANCE = 15
"""Points between a name and its point from which a leader line joins them."""


@dataclass(frozen=True)
class Style:
    """Colour, marker and line of a method in charts.

    Attributes:
        color: CSS variable of its colour.
        marker: of matplotlib.
        dash: lengths of dashes and gaps in line widths, None for a solid line.
        control: whether its markers are hollow.
    """

    color: str
    marker: str
    dash: tuple[float, ...] | None
    control: bool

    @property
    def css(self) -> str:
        """CSS classes of its markers."""
        fill = "hollow" if self.control else "solid"
        return f"{fill} {self.color}"

    def line(self, size: float) -> dict[str, Any]:
        """Return the arguments of ``Axes.plot`` for a line with markers of ``size`` points."""
        line_color = color(self.color)
        arguments: dict[str, Any] = {
            "color": line_color,
            "linewidth": 1.8,
            "linestyle": "-",
            "marker": self.marker,
            "markersize": size * _MARKER_SCALES.get(self.marker, 1.0),
            "markerfacecolor": line_color,
            # a rim in the colour of the page separates markers that overlap
            "markeredgecolor": color("paper"),
            "markeredgewidth": 1.0,
        }
        if self.dash is not None:
            arguments["linestyle"] = (0, self.dash)
        if self.control:
            arguments["markerfacecolor"] = color("paper")
            arguments["markeredgecolor"] = line_color
            arguments["markeredgewidth"] = 1.6
        return arguments


def assign_styles(results: Results) -> dict[str, Style]:
    """Assign a style to every method and control of the results.

    A method has the colour it declares, and the marker that belongs to it, so that it looks the same in every report.
    Of several methods with one colour the first has it; they and methods without a colour take those that are left.
    """
    numbers: dict[str, int] = {}
    for name in results.methods:
        declared = results.description(name).color
        if declared in COLORS and COLORS.index(declared) not in numbers.values():
            numbers[name] = COLORS.index(declared)
    free = [number for number in range(len(COLORS)) if number not in numbers.values()]
    if not free:
        # every colour is taken: they are given out a second time
        free = list(range(len(COLORS)))
    without_color = [name for name in results.methods if name not in numbers]
    for index, name in enumerate(without_color):
        numbers[name] = free[index % len(free)]
    styles = {}
    for name in results.methods:
        styles[name] = Style(f"s{numbers[name]}", MARKERS[numbers[name]], dash=None, control=False)
    for index, name in enumerate(results.controls):
        number = index % len(DASHES)
        styles[name] = Style(f"c{number}", CONTROL_MARKERS[number], DASHES[number], control=True)
    return styles


def line_chart(
    curves: Sequence[Curve], styles: Mapping[str, Style], title: str, x_label: str, y_label: str, *, log_x: bool = False
) -> Markup:
    """Draw curves of one kind over each other, each with its 95 % band; controls below, dashed."""
    figure, axes = _axes(title, x_label, y_label)
    axes.margins(x=0, y=0.06)
    if log_x:
        axes.set_xscale("log")
    # controls first: the curves of methods are drawn over them
    ordered = sorted(curves, key=lambda curve: not styles[curve.method].control)
    for order, curve in enumerate(ordered):
        _draw_curve(axes, curve, styles[curve.method], order, log_x)
    return _chart(figure, axes)


def _draw_curve(axes: Axes, curve: Curve, style: Style, order: int, log_x: bool) -> None:
    """Draw one curve with its band.

    Args:
        axes: to draw on.
        curve: to draw.
        style: of its method.
        order: number of curves drawn before.
        log_x: leave out points at 0, which a logarithmic axis has not.
    """
    points = []
    for position, mean in zip(curve.x, curve.means, strict=True):
        if position > 0 or not log_x:
            points.append((position, mean.value, mean.ci_low, mean.ci_high))
    x, value, low, high = np.array(points, dtype=float).reshape(-1, 4).T
    band = axes.fill_between(x, low, high, color=color(style.color), alpha=0.11, linewidth=0)
    band.set_gid(f"band {style.color}")
    known = np.flatnonzero(np.isfinite(value))
    step = max(1, len(known) // _MARKERS_PER_CURVE)
    # each curve's markers begin a little later than those of the one before: where curves meet, all are visible
    first = (order * max(1, step // 5)) % step
    axes.plot(x, value, gid=f"curve {style.css}", markevery=known[first::step].tolist(), **style.line(8.0))


def curve_figure(
    charts: Mapping[str, Sequence[Curve]],
    styles: Mapping[str, Style],
    x_label: str,
    y_label: str,
    caption: str,
    *,
    log_x: bool = False,
) -> ChartFigure | None:
    """Draw charts of curves with one legend; None without any.

    Args:
        charts: title of a chart -> its curves; charts without curves are left out.
        styles: style of each method.
        x_label: of the axes across.
        y_label: of the axes up.
        caption: of the figure; ``{n}`` becomes the numbers its means rest on.
        log_x: whether the axes across are logarithmic.
    """
    drawn = []
    methods: dict[str, None] = {}
    counts = []
    for title, curves in charts.items():
        if not curves:
            continue
        drawn.append(line_chart(curves, styles, title, x_label, y_label, log_x=log_x))
        for curve in curves:
            methods[curve.method] = None
            counts += [mean.n for mean in curve.means]
    if not drawn:
        return None
    return ChartFigure(caption.format(n=counted(counts)), drawn, legend(list(methods), styles))


def scatter(
    points: Mapping[str, tuple[Estimate, Estimate]], styles: Mapping[str, Style], title: str, x_label: str, y_label: str
) -> Markup:
    """Draw a point with error bars for each method; the upper left corner is marked as the best one.

    Args:
        points: name -> its values on the horizontal axis (lower is better) and the vertical axis (higher is better).
        styles: style of each method.
        title: of the chart.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
    """
    figure, axes = _axes(title, x_label, y_label)
    axes.margins(0.15)  # room for the word in the corner
    known = {name: (x, y) for name, (x, y) in points.items() if x.known and y.known}
    # controls first: the points of methods are drawn over them
    ordered = sorted(known, key=lambda name: not styles[name].control)
    for name in ordered:
        x, y = known[name]
        style = styles[name]
        bar: dict[str, Any] = {
            "color": color(style.color),
            "alpha": 0.75,
            "linewidth": 1.4,
            "gid": f"bar {style.color}",
        }
        axes.plot([x.ci_low, x.ci_high], [y.value, y.value], **bar)
        axes.plot([x.value, x.value], [y.ci_low, y.ci_high], **bar)
    for name in ordered:
        x, y = known[name]
        style = styles[name]
        marker = style.line(11.0) | {"linestyle": "none"}
        axes.plot(x.value, y.value, gid=f"mark {style.css}|{name}", **marker)
    axes.annotate(
        "better",
        (0, 1),
        (22, -26),
        xycoords="axes fraction",
        textcoords="offset points",
        color=color("soft"),
        fontsize=12,
        fontstyle="italic",
        arrowprops={"arrowstyle": "->", "color": color("soft"), "linewidth": 1.6, "relpos": (0, 1), "shrinkA": 0},
    )
    # names are placed in pixels, for which the limits of the axes have to be final
    axes.autoscale_view()
    _draw_labels(axes, known, styles)
    return _chart(figure, axes)


def legend(names: Sequence[str], styles: Mapping[str, Style]) -> list[LegendItem]:
    """Build the legend of one figure or several."""
    return [LegendItem(name, _sample(styles[name]), styles[name].control) for name in names]


@cache
def _sample(style: Style) -> Markup:
    figure = Figure(figsize=(32 / 72, 16 / 72), dpi=72)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(-16, 16), ylim=(-1, 1))
    axes.set_axis_off()
    axes.plot([-15, 0, 15], [0, 0, 0], markevery=[1], **style.line(8.0))
    drawn = element("svg", *drawing(figure), viewBox="0 0 32 16", width=32, height=16, aria_hidden="true")
    return to_markup(drawn)


def _axes(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
    width = _WIDTH - _LEFT - _RIGHT
    height = _HEIGHT - _TOP - _BOTTOM
    axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, width / _WIDTH, height / _HEIGHT))
    axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=color("ink"), parse_math=False)
    axes.set_xlabel(x_label, fontsize=13, color=color("soft"))
    axes.set_ylabel(y_label, fontsize=13, color=color("soft"))
    return figure, axes


def _chart(figure: Figure, axes: Axes) -> Markup:
    """Add grid and ticks, and write the chart."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "linear":
            axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.minorticks_off()
    axes.tick_params(length=0, pad=7, labelsize=12, labelcolor=color("soft"))
    axes.grid(color=color("line"), linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    low, high = axes.get_ylim()
    if low <= 0 <= high:
        axes.axhline(0, color=color("soft"), linewidth=1, zorder=0.6)
    title = element("title", axes.get_title(loc="left"))
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return to_markup(element("svg", title, *drawing(figure), class_="chart", viewBox=box, role="img"))


def _tick(value: float) -> str:
    """Format a value of an axis."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    # rounded: ticks are computed by adding steps, which leaves errors such as 0.30000000000000004
    return f"{round(value, 10):g}".replace("-", "−")


def _draw_labels(axes: Axes, points: Mapping[str, tuple[Estimate, Estimate]], styles: Mapping[str, Style]) -> None:
    """Write the name of each point beside it without overlap; names far from their points get a leader line."""
    pixels = IdentityTransform()
    positions = {name: _pixel_position(axes, x.value, y.value) for name, (x, y) in points.items()}
    left, bottom, right, top = axes.bbox.extents
    room = np.array([(left + 2, bottom + 2, right, top - 2, _OUTSIDE_COST)])
    # the corner with the word "better", the markers, and the error bars
    taken = [(left, top - 26, left + 70, top, _LABEL_COST)]
    for x, y in positions.values():
        taken.append((x - 8, y - 8, x + 8, y + 8, _LABEL_COST))
    taken += _error_bars(axes, points)
    # from left to right, so that places do not depend on the order of the methods
    for name, (x, y) in sorted(positions.items(), key=lambda item: item[1]):
        width, _, _ = text_to_path.get_text_width_height_descent(name, FontProperties(size=_LABEL_SIZE), False)
        box = _free_box((width, 14.0), (x, y), np.array(taken), room)
        box_left, box_bottom, box_right, box_top = box
        taken.append((*box, _LABEL_COST))
        ink = color(styles[name].color)
        nearest_x = min(max(x, box_left), box_right)
        nearest_y = min(max(y, box_bottom), box_top)
        if math.dist((x, y), (nearest_x, nearest_y)) > _LEADER_DISTANCE:
            leader: dict[str, Any] = {
                "transform": pixels,
                "color": ink,
                "alpha": 0.6,
                "linewidth": 0.8,
                "gid": "leader",
            }
            axes.plot((x, nearest_x), (y, nearest_y), **leader)
        label: dict[str, Any] = {"transform": pixels, "color": ink, "size": _LABEL_SIZE, "gid": "label"}
        axes.text(box_left, box_bottom + 3.5, name, parse_math=False, **label)


def _pixel_position(axes: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = axes.transData.transform((x, y)).tolist()
    return across, up


def _error_bars(
    axes: Axes, points: Mapping[str, tuple[Estimate, Estimate]]
) -> list[tuple[float, float, float, float, float]]:
    """Boxes around the error bars of points, in pixels, each with the cost of hiding it; see `_free_box`."""
    boxes = []
    for x, y in points.values():
        horizontal = (x.ci_low, y.value, x.ci_high, y.value)
        vertical = (x.value, y.ci_low, x.value, y.ci_high)
        for x1, y1, x2, y2 in (horizontal, vertical):
            # a mean over one patient has no interval
            if all(map(math.isfinite, (x1, y1, x2, y2))):
                left, bottom = _pixel_position(axes, x1, y1)
                right, top = _pixel_position(axes, x2, y2)
                boxes.append((left - 2, bottom - 2, right + 2, top + 2, _ERROR_BAR_COST))
    return boxes


def _free_box(
    size: tuple[float, float], point: tuple[float, float], taken: np.ndarray, room: np.ndarray
) -> tuple[float, float, float, float]:
    """Choose the box of a name, on ellipses around its point, that hides least: left, bottom, right, top in pixels.

    Args:
        size: width and height of the name.
        point: that it names.
        taken: boxes to keep clear of and the cost of hiding them, (N, 5).
        room: the box to stay inside of and the cost of leaving it, (1, 5).
    """
    half = np.array(size) / 2
    angle, distance = np.meshgrid(2 * np.pi * np.arange(16) / 16, (12.0, 20.0, 32.0, 46.0, 64.0))
    x = np.cos(angle) * (distance + half[0])
    y = np.sin(angle) * (distance + half[1] / 2)
    offsets = np.stack([x, y], -1).reshape(-1, 2)
    boxes = np.hstack([point + offsets - half, point + offsets + half])
    # from the point to the nearest pixel of each box
    gap = np.linalg.norm(np.clip(point, boxes[:, :2], boxes[:, 2:]) - point, axis=1)
    # the room counts as a gain: what of a box lies outside of it gains nothing
    costs = _overlap_cost(boxes, taken) - _overlap_cost(boxes, room) + gap
    left, bottom, right, top = boxes[costs.argmin()].tolist()
    return left, bottom, right, top


def _overlap_cost(boxes: np.ndarray, weighted: np.ndarray) -> np.ndarray:
    """Area of each box (M, 4) that lies in other boxes (N, 4), times the weights of these, (N, 5); summed, (M,)."""
    sides = np.minimum(boxes[:, None, 2:], weighted[:, 2:4]) - np.maximum(boxes[:, None, :2], weighted[:, :2])
    return sides.clip(min=0).prod(-1) @ weighted[:, 4]
