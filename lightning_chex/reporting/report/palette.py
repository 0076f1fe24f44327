"""One colour and one marker a method, the same in every figure; controls are grey, hollow and dashed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# light page, dark page: after Okabe and Ito and Paul Tol, kept apart for colour-blind eyes, and never by colour alone
COLORS = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8a42"),
    ("#009e73", "#35d0a0"),
    ("#aa3377", "#ee8fc4"),
    ("#9a7400", "#f0d050"),
    ("#4092c9", "#b5dcff"),
    ("#7a4a28", "#d6a884"),
    ("#4b3fb0", "#a79bff"),
    ("#7d8a1f", "#c3d36a"),
)
CONTROL_COLORS = (("#5f6368", "#aab0b6"), ("#8a8f94", "#80868c"), ("#3c4043", "#d5d9dd"), ("#70757a", "#989ea4"))
DASHES = ("7 4", "2 4", "10 3 2 3", "5 2")

_PREFERRED = {
    "IBA": 0,
    "RegressionIBA_MSE": 0,
    "InverseIBA": 1,
    "RegressionInverseIBA": 1,
    "MultiLayerIBA": 2,
    "GradCAM": 3,
    "IntegratedGradients": 4,
    "Gradient": 5,
    "LRP": 6,
    "RegressionIBA_RM": 7,
    "RegressionIBA_DV": 8,
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        css: class that sets the colour.
        shape: number of its marker.
        dash: of its line, None for a whole one.
        control: drawn hollow.
    """

    css: str
    shape: int
    dash: str | None
    control: bool

    def marker(self, x: float, y: float, radius: float = 5.0) -> dict[str, str]:
        """Attributes of the marker's ``path`` at a place of the drawing."""
        points = _SHAPES[self.shape]
        path = "L".join(f"{x + radius * px:.1f} {y + radius * py:.1f}" for px, py in points)
        return {"d": f"M{path}Z", "class_": f"mark {'hollow' if self.control else 'solid'} {self.css}"}


def looks(methods: Sequence[str], controls: Sequence[str]) -> dict[str, Look]:
    """Give every name its look: known methods the same in every report, others what is left."""
    taken: dict[str, int] = {}
    for name in methods:
        place = _PREFERRED.get(name)
        if place is not None and place not in taken.values():
            taken[name] = place
    free = [place for place in range(len(COLORS)) if place not in taken.values()] or list(range(len(COLORS)))
    for number, name in enumerate(name for name in methods if name not in taken):
        taken[name] = free[number % len(free)]
    made = {name: Look(f"s{taken[name]}", taken[name] % len(_SHAPES), None, False) for name in methods}
    for number, name in enumerate(controls):
        place = number % len(CONTROL_COLORS)
        made[name] = Look(f"c{place}", place, DASHES[place], True)
    return made


def color_css(dark: bool) -> str:
    """The rules that give each class its colour."""
    pairs = {f"s{k}": pair for k, pair in enumerate(COLORS)} | {f"c{k}": pair for k, pair in enumerate(CONTROL_COLORS)}
    return "".join(f".{name}{{--c:{pair[dark]}}}" for name, pair in pairs.items())


def _polygon(corners: int, turn: float = 0.0, radius: float = 1.0) -> list[tuple[float, float]]:
    angles = [2 * math.pi * (k / corners + turn) - math.pi / 2 for k in range(corners)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _cross(arm: float = 0.38) -> list[tuple[float, float]]:
    a = arm
    return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


def _star() -> list[tuple[float, float]]:
    outer, inner = _polygon(5, radius=1.25), _polygon(5, 0.1, 0.52)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


_SHAPES = (
    _polygon(24),
    _polygon(4, 0.125, 1.2),
    _polygon(3, 0.0, 1.25),
    _polygon(4, 0.0, 1.25),
    _polygon(3, 0.5, 1.25),
    _cross(),
    _star(),
    _polygon(5, 0.0, 1.1),
    [(-0.45, -1.1), (0.45, -1.1), (0.45, 1.1), (-0.45, 1.1)],
)
