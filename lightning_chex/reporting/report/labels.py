"""Names beside points: each takes the free place nearest to its point."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from lightning_chex.reporting.report.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from lightning_chex.reporting.report.markup import element
from lightning_chex.reporting.report.palette import Look

_LETTER, _LINE = 7.2, 14.0  # width of a letter and height of a line at the size of labels
_REACH = (12.0, 20.0, 32.0, 46.0, 64.0)
_TURNS = 16


class Box(NamedTuple):
    """A rectangle of the drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Area both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


def place_labels(
    points: Mapping[str, tuple[float, float]], bars: Sequence[Box], looks: Mapping[str, Look]
) -> list[Element]:
    """Write each name near its point, clear of other names, points and ``bars``; a thin line joins what stands off."""
    room = Box(LEFT + 2, TOP + 2, WIDTH - RIGHT, HEIGHT - BOTTOM - 2)
    # the corner that is marked as the best one is taken
    taken = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in points.values()] + [Box(LEFT, TOP, LEFT + 70, TOP + 26)]
    taken += [Box(bar.left - 2, bar.top - 2, bar.right + 2, bar.bottom + 2) for bar in bars]
    made = []
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1]):
        choices = [box for reach in _REACH for box in _around(name, x, y, reach)]
        box = min(choices, key=lambda each: _cost(each, taken, room, x, y))
        taken.append(box)
        if math.hypot(_nearest(box.left, box.right, x) - x, _nearest(box.top, box.bottom, y) - y) > 15:
            end = (_nearest(box.left, box.right, x), _nearest(box.top, box.bottom, y))
            made.append(element("line", x1=x, y1=y, x2=end[0], y2=end[1], class_=f"leader {looks[name].css}"))
        made.append(element("text", name, x=box.left, y=box.bottom - 3.5, class_=f"label {looks[name].css}"))
    return made


def _around(name: str, x: float, y: float, reach: float) -> list[Box]:
    """Places for a name on an ellipse about a point, right of it first."""
    width = _LETTER * len(name)
    boxes = []
    for k in range(_TURNS):
        angle = 2 * math.pi * k / _TURNS
        centre_x = x + math.cos(angle) * (reach + width / 2)
        centre_y = y + math.sin(angle) * (reach + _LINE / 4)
        boxes.append(Box(centre_x - width / 2, centre_y - _LINE / 2, centre_x + width / 2, centre_y + _LINE / 2))
    return boxes


def _cost(box: Box, taken: list[Box], room: Box, x: float, y: float) -> float:
    area = (box.right - box.left) * (box.bottom - box.top)
    hidden = sum(box.overlap(other) for other in taken)
    outside = area - box.overlap(room)
    distance = math.hypot(_nearest(box.left, box.right, x) - x, _nearest(box.top, box.bottom, y) - y)
    return 10 * hidden + 20 * outside + distance


def _nearest(low: float, high: float, value: float) -> float:
    return min(max(value, low), high)
