"""Curves with their intervals, and points with their error bars, as SVG that follows the page's light or dark."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from xml.etree.ElementTree import Element

from lightning_chex.reporting.evaluation import Curve
from lightning_chex.reporting.report.axes import LEFT, TOP, Frame, scale_of
from lightning_chex.reporting.report.labels import Box, place_labels
from lightning_chex.reporting.report.markup import element
from lightning_chex.reporting.report.palette import Look
from lightning_chex.reporting.results import Cell

_MARKS = 6  # on a curve: enough to tell curves apart without colour


def line_chart(
    curves: Sequence[Curve], looks: Mapping[str, Look], title: str, x_label: str, y_label: str, *, log_x: bool = False
) -> Element:
    """Draw curves of one kind over each other, each with its 95 % band; controls below, dashed."""
    ends = [v for c in curves for values in (c.value, c.ci_low, c.ci_high) for v in values]
    frame = Frame(scale_of([x for c in curves for x in c.x], x_label, log=log_x, air=0), scale_of(ends, y_label))
    ordered = sorted(curves, key=lambda curve: not looks[curve.method].control)
    bands = [_band(frame, curve, looks[curve.method]) for curve in ordered]
    lines = [mark for k, curve in enumerate(ordered) for mark in _line(frame, curve, looks[curve.method], k)]
    return frame.draw(title, *bands, *lines)


def scatter(
    points: Mapping[str, tuple[Cell, Cell]], looks: Mapping[str, Look], title: str, x_label: str, y_label: str
) -> Element:
    """Draw a point with error bars a method; the upper left corner is marked as the best one.

    Args:
        points: name -> where it lies across (lower is better) and up (higher is better).
        looks: name -> how it is drawn.
        title: of the chart.
        x_label: of the axis across.
        y_label: of the axis up.
    """
    shown = {name: (x, y) for name, (x, y) in points.items() if x.value is not None and y.value is not None}
    # room in the corner that is marked
    frame = Frame(
        scale_of([v for x, _ in shown.values() for v in (x.value, x.ci_low, x.ci_high)], x_label, air=0.15),
        scale_of([v for _, y in shown.values() for v in (y.value, y.ci_low, y.ci_high)], y_label, air=0.15),
    )
    bars, marks, places, taken = [], [], {}, []
    for name, (x, y) in sorted(shown.items(), key=lambda item: not looks[item[0]].control):
        across, up = frame.across(x.value or 0.0), frame.up(y.value or 0.0)
        places[name] = (across, up)
        marks.append(element("path", element("title", name), **looks[name].marker(across, up, 6.0)))
        for bar in _error_bars(frame, x, y, across, up):
            taken.append(bar)
            css = f"bar {looks[name].css}"
            bars.append(element("line", x1=bar.left, x2=bar.right, y1=bar.top, y2=bar.bottom, class_=css))
    return frame.draw(title, _best_corner(), *bars, *marks, *place_labels(places, taken, looks))


def legend(names: Sequence[str], looks: Mapping[str, Look]) -> Element:
    """Names with their marks, for one figure or several."""
    items = []
    for name in names:
        look = looks[name]
        sample = element(
            "svg",
            element("line", x1=1, x2=31, y1=8, y2=8, class_=f"curve {look.css}", stroke_dasharray=look.dash),
            element("path", **look.marker(16, 8, 5.0)),
            viewBox="0 0 32 16",
            width=32,
            height=16,
            aria_hidden="true",
        )
        items.append(element("li", sample, name, element("i", " control") if look.control else None))
    return element("ul", *items, class_="legend")


def _error_bars(frame: Frame, x: Cell, y: Cell, across: float, up: float) -> list[Box]:
    bars = []
    if x.ci_low is not None and x.ci_high is not None:
        bars.append(Box(frame.across(x.ci_low), up, frame.across(x.ci_high), up))
    if y.ci_low is not None and y.ci_high is not None:
        bars.append(Box(across, frame.up(y.ci_high), across, frame.up(y.ci_low)))
    return bars


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _band(frame: Frame, curve: Curve, look: Look) -> Element:
    places = [
        (frame.across(x), frame.up(low), frame.up(high))
        for x, low, high in zip(curve.x, curve.ci_low, curve.ci_high, strict=True)
        if low is not None and high is not None and _known(low) and _known(high) and (x > 0 or not frame.x.log)
    ]
    outline = [(x, low) for x, low, _ in places] + [(x, high) for x, _, high in reversed(places)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in outline) + "Z" if outline else "M0 0"
    return element("path", d=path, class_=f"band {look.css}")


def _line(frame: Frame, curve: Curve, look: Look, order: int) -> list[Element]:
    points = [
        (frame.across(x), frame.up(v)) if v is not None and _known(v) and (x > 0 or not frame.x.log) else None
        for x, v in zip(curve.x, curve.value, strict=True)
    ]
    runs = [list(run) for known, run in groupby(points, key=lambda point: point is not None) if known]
    path = "".join("M" + "L".join(f"{p[0]:.1f} {p[1]:.1f}" for p in run if p) for run in runs)
    if not path:
        return []
    line = element("path", d=path, class_=f"curve {look.css}", stroke_dasharray=look.dash)
    places = [point for point in points if point]
    # each curve begins its marks a little later than the one before: where curves meet, marks do not hide each other
    step = max(1, len(places) // _MARKS)
    first = 0 if step == 1 else (order * max(1, step // 5)) % step
    return [line, *(element("path", **look.marker(x, y, 4.2)) for x, y in places[first::step])]


def _best_corner() -> Element:
    x, y = LEFT + 6, TOP + 6
    arrow = f"M{x} {y + 13}V{y}H{x + 13}M{x} {y}L{x + 16} {y + 16}"
    return element(
        "g",
        element("path", d=arrow, class_="best"),
        element("text", "better", x=x + 21, y=y + 16, class_="best-word"),
    )
