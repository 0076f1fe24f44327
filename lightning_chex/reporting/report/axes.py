"""The frame of a chart: scales, ticks, labels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from lightning_chex.reporting.report.markup import element

WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 50


@dataclass(frozen=True)
class Scale:
    """From values to places along an axis.

    Attributes:
        low: value at its beginning.
        high: value at its end, above ``low``.
        label: for people.
        log: logarithmic; then ``low`` is above 0.
    """

    low: float
    high: float
    label: str
    log: bool = False

    def share(self, value: float) -> float:
        """Place of a value, 0 at the beginning and 1 at the end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values to write at the axis.

        Example:
            >>> Scale(0, 1, "share").ticks()
            [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
            >>> Scale(1, 50000, "pixels", log=True).ticks()
            [1.0, 10.0, 100.0, 1000.0, 10000.0]
        """
        if self.log:
            return [10.0**k for k in range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)]
        step = _round_step((self.high - self.low) / 7)
        first = math.ceil(self.low / step - 1e-9)
        return [round(k * step, 10) for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale_of(values: Iterable[float | None], label: str, *, log: bool = False, air: float = 0.06) -> Scale:
    """A scale that holds all values, with some air at its ends, a share of its length; none where it is logarithmic."""
    known = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not log)] or [1.0]
    low, high = min(known), max(known)
    if log:
        return Scale(low, max(high, low * 10), label, log=True)
    if low == high:
        low, high = low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1)
    margin = air * (high - low)
    return Scale(low - margin, high + margin, label)


@dataclass(frozen=True)
class Frame:
    """Two scales on a drawing of ``WIDTH`` x ``HEIGHT``."""

    x: Scale
    y: Scale

    def across(self, value: float) -> float:
        """Horizontal place of a value."""
        return LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)

    def up(self, value: float) -> float:
        """Vertical place of a value."""
        return HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM)

    def draw(self, title: str, *marks: Element) -> Element:
        """The whole chart: grid and labels below, marks above."""
        grid = [*self._x_axis(), *self._y_axis()]
        return element(
            "svg",
            element("title", title),
            element("text", title, class_="chart-title", x=LEFT, y=18),
            element("g", *grid, class_="grid"),
            element("text", self.x.label, class_="axis", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 10),
            element(
                "text",
                self.y.label,
                class_="axis",
                transform=f"translate(15 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)",
            ),
            *marks,
            class_="chart",
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
        )

    def _x_axis(self) -> list[Element]:
        bottom = HEIGHT - BOTTOM
        made = []
        for value in self.x.ticks():
            x = self.across(value)
            made += [
                element("line", x1=x, x2=x, y1=TOP, y2=bottom),
                element("text", _tick(value), x=x, y=bottom + 18, class_="tick", text_anchor="middle"),
            ]
        return made

    def _y_axis(self) -> list[Element]:
        made = []
        for value in self.y.ticks():
            y = self.up(value)
            made += [
                element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="zero" if value == 0 else None),
                element("text", _tick(value), x=LEFT - 7, y=y + 4.5, class_="tick", text_anchor="end"),
            ]
        return made


def _round_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= rough * (1 - 1e-9))


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}".replace("-", "−")
