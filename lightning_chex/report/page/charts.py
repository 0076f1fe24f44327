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

_WIDTH, _HEIGHT = 480, 340  # points; the page scales charts to its columns
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 30, 50
_MARKS = 6  # on a curve: enough to tell curves apart without colour
_SIZES = {"D": 0.8, "*": 1.5, "^": 1.1, "v": 1.1, "P": 1.15, "X": 1.1}  # of markers, to look equally large


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
        """Classes of its marks."""
        return f"{'hollow' if self.control else 'solid'} {self.color}"

    def line(self, size: float) -> dict[str, Any]:
        """Arguments of a line with markers of ``size`` points."""
        own, paper = color(self.color), color("paper")
        return {
            "color": own,
            "linewidth": 1.8,
            "linestyle": (0, self.dash) if self.dash else "-",
            "marker": self.marker,
            "markersize": size * _SIZES.get(self.marker, 1.0),
            "markerfacecolor": paper if self.control else own,
            "markeredgecolor": own if self.control else paper,
            "markeredgewidth": 1.6 if self.control else 1.0,
        }


def assign_styles(results: Results) -> dict[str, Style]:
    """Assign a style to every method and control of the results.

    A method has the colour it declares, and the marker that belongs to it, so that it looks the same in every report.
    Of several methods with one colour the first has it; they and methods without a colour take those that are left.
    """
    numbers: dict[str, int] = {}
    for name in results.methods:
        wanted = results.description(name).color
        if wanted in COLORS and COLORS.index(wanted) not in numbers.values():
            numbers[name] = COLORS.index(wanted)
    free = [number for number in range(len(COLORS)) if number not in numbers.values()] or list(range(len(COLORS)))
    others = [name for name in results.methods if name not in numbers]
    for place, name in enumerate(others):
        numbers[name] = free[place % len(free)]
    styles = {name: Style(f"s{numbers[name]}", MARKERS[numbers[name]], None, False) for name in results.methods}
    for place, name in enumerate(results.controls):
        number = place % len(DASHES)
        styles[name] = Style(f"c{number}", CONTROL_MARKERS[number], DASHES[number], True)
    return styles


def line_chart(
    curves: Sequence[Curve], styles: Mapping[str, Style], title: str, x_label: str, y_label: str, *, log_x: bool = False
) -> Markup:
    """Draw curves of one kind over each other, each with its 95 % band; controls below, dashed."""
    figure, axes = _axes(title, x_label, y_label)
    axes.margins(x=0, y=0.06)
    if log_x:
        axes.set_xscale("log")
    for order, curve in enumerate(sorted(curves, key=lambda curve: not styles[curve.method].control)):
        style = styles[curve.method]
        means = [mean for x, mean in zip(curve.x, curve.means, strict=True) if x > 0 or not log_x]
        x = np.array([x for x in curve.x if x > 0 or not log_x], dtype=float)
        value, low, high = (
            np.array([getattr(mean, part) for mean in means], dtype=float) for part in ("value", "ci_low", "ci_high")
        )
        band = axes.fill_between(x, low, high, color=color(style.color), alpha=0.11, linewidth=0)
        band.set_gid(f"band {style.color}")
        # each curve's markers begin a little later than those of the one before: where curves meet, all are seen
        known = np.flatnonzero(np.isfinite(value))
        step = max(1, len(known) // _MARKS)
        first = 0 if step == 1 else (order * max(1, step // 5)) % step
        axes.plot(x, value, gid=f"curve {style.css}", markevery=known[first::step].tolist(), **style.line(8.0))
    return _chart(figure, axes)


def curve_figure(
    found: Mapping[str, Sequence[Curve]],
    styles: Mapping[str, Style],
    x_label: str,
    y_label: str,
    caption: str,
    *,
    log_x: bool = False,
) -> ChartFigure | None:
    """Draw charts of curves with one legend; None without any.

    Args:
        found: title of a chart -> its curves; charts without curves are left out.
        styles: method -> how it is drawn.
        x_label: of the axes across.
        y_label: of the axes up.
        caption: of the figure; ``{n}`` becomes the numbers its means rest on.
        log_x: whether the axes across are logarithmic.
    """
    drawn = {title: curves for title, curves in found.items() if curves}
    curves = [curve for own in drawn.values() for curve in own]
    if not curves:
        return None
    charts = [line_chart(own, styles, title, x_label, y_label, log_x=log_x) for title, own in drawn.items()]
    methods = list(dict.fromkeys(curve.method for curve in curves))
    n = counted(mean.n for curve in curves for mean in curve.means)
    return ChartFigure(caption.format(n=n), charts, legend(methods, styles))


def scatter(
    points: Mapping[str, tuple[Estimate, Estimate]], styles: Mapping[str, Style], title: str, x_label: str, y_label: str
) -> Markup:
    """Draw a point with error bars a method; the upper left corner is marked as the best one.

    Args:
        points: name -> where it lies across (lower is better) and up (higher is better).
        styles: name -> how it is drawn.
        title: of the chart.
        x_label: of the axis across.
        y_label: of the axis up.
    """
    figure, axes = _axes(title, x_label, y_label)
    axes.margins(0.15)  # room for the word in the corner
    shown = {name: (x, y) for name, (x, y) in points.items() if x.known and y.known}
    ordered = sorted(shown, key=lambda name: not styles[name].control)
    for name in ordered:
        (x, y), style = shown[name], styles[name]
        for across, up in (([x.ci_low, x.ci_high], [y.value] * 2), ([x.value] * 2, [y.ci_low, y.ci_high])):
            axes.plot(across, up, color=color(style.color), alpha=0.75, linewidth=1.4, gid=f"bar {style.color}")
    for name in ordered:
        (x, y), style = shown[name], styles[name]
        axes.plot(x.value, y.value, gid=f"mark {style.css}|{name}", **style.line(11.0) | {"linestyle": "none"})
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
    axes.autoscale_view()
    _label(axes, shown, styles)
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
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
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
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 10):g}".replace("-", "−")


def _label(axes: Axes, points: Mapping[str, tuple[Estimate, Estimate]], styles: Mapping[str, Style]) -> None:
    """Write the name of each point beside it without overlap; names far from their points get a leader line."""
    size, names, bars = 12.5, 40.0, 10.0  # points; costs of each square point hidden

    def place(x: float, y: float) -> tuple[float, float]:
        left, bottom = axes.transData.transform((x, y)).tolist()
        return left, bottom

    places = {name: place(across.value, up.value) for name, (across, up) in points.items()}
    left, bottom, right, top = axes.bbox.extents
    room = np.array([(left + 2, bottom + 2, right, top - 2, 20.0)])
    taken = [
        (left, top - 26, left + 70, top, names),
        *((x - 8, y - 8, x + 8, y + 8, names) for x, y in places.values()),
    ]
    for across, up in points.values():
        for ends in (
            (across.ci_low, up.value, across.ci_high, up.value),
            (across.value, up.ci_low, across.value, up.ci_high),
        ):
            if all(map(math.isfinite, ends)):
                (x1, y1), (x2, y2) = place(*ends[:2]), place(*ends[2:])
                taken.append((x1 - 2, y1 - 2, x2 + 2, y2 + 2, bars))
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1]):
        width, _, _ = text_to_path.get_text_width_height_descent(name, FontProperties(size=size), False)
        box = _free_box((width, 14.0), (x, y), np.array(taken), room)
        taken.append((*box, names))
        ink, pixels = color(styles[name].color), IdentityTransform()
        end = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
        if math.dist((x, y), end) > 15:
            axes.plot((x, end[0]), (y, end[1]), transform=pixels, color=ink, alpha=0.6, linewidth=0.8, gid="leader")
        axes.text(box[0], box[1] + 3.5, name, transform=pixels, color=ink, size=size, gid="label", parse_math=False)


def _free_box(
    size: tuple[float, float], point: tuple[float, float], taken: np.ndarray, room: np.ndarray
) -> tuple[float, float, float, float]:
    """Choose the place for a name, on ellipses about its point, that hides least: left, bottom, right, top in points.

    Args:
        size: width and height of the name.
        point: what it names.
        taken: boxes to keep clear of and the cost of hiding them, (N, 5).
        room: the box to stay inside of and the cost of leaving it, (1, 5).
    """
    half = np.array(size) / 2
    angle, reach = np.meshgrid(2 * np.pi * np.arange(16) / 16, (12.0, 20.0, 32.0, 46.0, 64.0))
    away = np.stack([np.cos(angle) * (reach + half[0]), np.sin(angle) * (reach + half[1] / 2)], -1).reshape(-1, 2)
    boxes = np.hstack([point + away - half, point + away + half])

    def cost(others: np.ndarray) -> np.ndarray:
        sides = np.minimum(boxes[:, None, 2:], others[:, 2:4]) - np.maximum(boxes[:, None, :2], others[:, :2])
        return sides.clip(min=0).prod(-1) @ others[:, 4]

    distance = np.linalg.norm(np.clip(point, boxes[:, :2], boxes[:, 2:]) - point, axis=1)
    left, bottom, right, top = boxes[(cost(taken) - cost(room) + distance).argmin()].tolist()
    return left, bottom, right, top
