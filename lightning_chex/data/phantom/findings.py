"""The pathologies of the lung and pleura: each takes the place of air, or of vessels, where anatomy puts it.

A finding is a density (H, W) in [0, 1]: the share of the lung's air it replaces. The enlarged heart is no density; it
lives with the heart in ``render``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_chex.data.phantom.anatomy import CM, Anatomy
from lightning_chex.data.phantom.chest import branches
from lightning_chex.data.phantom.drawing import Canvas, Layer, ribbon, step


@dataclass(frozen=True)
class Appearance:
    """Appearance of findings.

    Attributes:
        conspicuity: scales their contrast; 1 is clearly visible.
        extent: scales their lengths.
        bilateral: draws each finding of the lungs in both of them, of which either alone shows the class.
    """

    conspicuity: float = 1.0
    extent: float = 1.0
    bilateral: bool = False


@dataclass(frozen=True)
class Site:
    """Allowed positions of findings.

    Attributes:
        canvas: the image.
        anatomy: the patient.
        lungs: bool (2, H, W), each lung beside heart and great vessels, with its blurred border.
        ratio: the cardiothoracic ratio in this image.
        sides: lungs that may show findings; a collapsed one shows only its pneumothorax and fluid.
        appearance: how the findings look.
    """

    canvas: Canvas
    anatomy: Anatomy
    lungs: npt.NDArray[np.bool_]
    ratio: float
    sides: tuple[int, ...] = (0, 1)
    appearance: Appearance = Appearance()

    @property
    def cm(self) -> float:
        """Return the length of a centimetre of a finding in units of the frame."""
        return CM * self.appearance.extent

    def within(self, side: int, across: float, down: float) -> tuple[float, float]:
        """A point (x, y) of a lung, see :meth:`Anatomy.within`."""
        return self.anatomy.within(side, across, down, self.ratio)


@dataclass(frozen=True)
class Pneumothorax:
    """Air between lung and chest wall.

    Attributes:
        side: 0 for the patient's right lung, 1 for the left.
        air: where no lung is, (H, W) in [0, 1].
        pleura: density of the thin line along the lung's edge, (H, W).
    """

    side: int
    air: Layer
    pleura: Layer


def atelectasis(site: Site, rng: np.random.Generator) -> Layer:
    """Plate-like bands across a lower zone, over a haze of lung that has lost volume."""
    side = int(rng.choice(site.sides))
    density = np.zeros_like(site.canvas.grid[0])
    first = rng.uniform(0.66, 0.84)
    for i in range(int(rng.integers(1, 3))):
        x, y = site.within(side, rng.uniform(0.4, 0.6), first + 0.14 * i)
        half = rng.uniform(2.2, 3.6) * site.cm
        tilt = rng.uniform(-0.3, 0.3)
        t = np.linspace(-1, 1, 17)
        curve = np.stack([x + half * t, y + half * tilt * t + rng.uniform(-0.012, 0.02) * (1 - t * t)], 1)
        thickness = rng.uniform(0.7, 1.1) * site.cm * (1 - 0.8 * t**4)
        plate = site.canvas.soft(site.canvas.fill(ribbon(curve, thickness)), 0.004)
        below = ribbon(curve + [0, 0.6 * site.cm], 1.9 * site.cm * (1 - t**2))
        haze = site.canvas.soft(site.canvas.fill(below), 0.012)
        density = np.maximum(density, np.maximum(0.8 * plate, 0.4 * haze))
    return density * site.lungs[side]


def effusion(site: Site, rng: np.random.Generator) -> Layer:
    """Fluid at the lung base: blunts the costophrenic angle, its meniscus climbs towards the ribs."""
    x, y = site.canvas.grid
    sides = [0, 1] if rng.random() < 0.3 else [int(rng.integers(2))]
    if site.appearance.bilateral:
        sides = list(site.sides)  # the caller goes through them
    density = np.zeros_like(x)
    for side in sides:
        lung = site.anatomy.lungs[side]
        lateral = np.abs(lung[:, 0] - 0.5).max()
        depth = rng.uniform(3.6, 8.5) * site.cm
        along = np.clip(np.abs(x - 0.5) * np.float32(1 / lateral), 0, 1)
        surface = lung[:, 1].max() - depth * (0.5 + 0.5 * along**4)
        density += 0.97 * step(y - surface, 0.012) * site.lungs[side]
    return density


def infiltration(site: Site, rng: np.random.Generator) -> Layer:
    """Ill-defined patches, often in both lungs."""
    x, y = site.canvas.grid
    patches = step(site.canvas.clouds(rng, 0.03) + 0.6 * site.canvas.clouds(rng, 0.014) - 0.1, 1.3)
    density = np.zeros_like(x)
    for _ in range(int(rng.integers(1, 4))):
        side = int(rng.choice(site.sides))
        cx, cy = site.within(side, rng.uniform(0.3, 0.65), rng.uniform(0.35, 0.85))
        rx = rng.uniform(3.0, 4.6) * site.cm
        ry = rng.uniform(3.6, 6.0) * site.cm
        distance = ((x - cx) / np.float32(rx)) ** 2 + ((y - cy) / np.float32(ry)) ** 2
        density = np.maximum(density, np.clip(1.25 * np.exp(-distance) - 0.25, 0, 1) * site.lungs[side])
    return density * (0.3 + 0.5 * patches)


def mass(site: Site, rng: np.random.Generator) -> Layer:
    """One large, well defined, slightly lobulated round lesion, 3.5 to 7 cm across."""
    side = int(rng.choice(site.sides))
    radius = rng.uniform(1.75, 3.5) * site.cm
    cx, cy = site.within(side, rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.8))
    return 0.92 * _ball(site, cx, cy, radius, rng.uniform(0.03, 0.08), rng) * site.lungs[side]


def nodule(site: Site, rng: np.random.Generator) -> Layer:
    """One to three small round lesions, 1.6 to 2.8 cm across, apart from each other."""
    density = np.zeros_like(site.canvas.grid[0])
    centres: list[tuple[float, float]] = []
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        side = int(rng.choice(site.sides))
        cx, cy = site.within(side, rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.9))
        ball = _ball(site, cx, cy, rng.uniform(0.8, 1.35) * site.cm, 0.02, rng)
        # two that touch would be one of more than 3 cm
        if all(np.hypot(cx - x, cy - y) > 3.5 * CM for x, y in centres):
            centres.append((cx, cy))
            density = np.maximum(density, 0.92 * ball * site.lungs[side])
    return density


def _ball(site: Site, cx: float, cy: float, radius: float, lobes: float, rng: np.random.Generator) -> Layer:
    radius = max(radius, 1.2 / site.canvas.size)  # in a tiny image it still covers a pixel's centre
    ball = np.zeros_like(site.canvas.grid[0])
    near = site.canvas.around(cx, cy, radius * 1.4)
    dx = site.canvas.grid[0][near] - np.float32(cx)
    dy = site.canvas.grid[1][near] - np.float32(cy)
    angle = np.arctan2(dy, dx)
    first, second = rng.uniform(0, 2 * np.pi, 2)
    edge = radius * (1 + lobes * (np.cos(2 * angle + first) + np.cos(3 * angle + second)))
    relative = (np.hypot(dx, dy) / edge).astype(np.float32)
    # the ray crosses more of a ball in its middle; the edge is blurred inwards by a pixel or so
    depth = np.sqrt(np.clip(1 - relative * relative, 0, 1))
    softness = min(0.4, max(0.06, 0.5 / (radius * site.canvas.size)))
    ball[near] = (0.72 + 0.28 * depth) * step(1 - softness - relative, softness)
    return ball


# side, centre (across, down), half axes in cm, and where a fissure cuts the lobe: below (1), above (-1), nowhere (0)
_LOBES = (
    (0, 0.55, 0.42, 4.6, 4.2, 1),  # right upper lobe on the horizontal fissure
    (0, 0.4, 0.78, 4.6, 3.4, -1),  # right middle lobe under it
    (0, 0.6, 0.88, 4.4, 3.6, 0),
    (1, 0.5, 0.38, 4.2, 4.4, 0),
    (1, 0.6, 0.82, 4.0, 4.0, 0),
)


def pneumonia(site: Site, rng: np.random.Generator) -> Layer:
    """Consolidation of a lobe or segment with a soft edge, sharp at the fissure, air left in its bronchi."""
    x, y = site.canvas.grid
    lobes = [lobe for lobe in _LOBES if lobe[0] in site.sides]
    side, across, down, rx, ry, fissure = lobes[int(rng.integers(len(lobes)))]
    cx, cy = site.within(side, across + rng.uniform(-0.1, 0.1), down)
    scale = rng.uniform(0.7, 1.0) * site.cm
    distance = np.hypot((x - cx) / np.float32(rx * scale), (y - cy) / np.float32(ry * scale))
    density = step(0.85 - distance + 0.13 * site.canvas.clouds(rng, 0.06), 0.32)
    if fissure:
        line = cy + fissure * 0.45 * ry * scale + 0.06 * (x - cx)
        density = density * step(fissure * (line - y), 0.006)
    hilum = site.anatomy.hila[side]
    heading = float(np.arctan2(cy - hilum[1], abs(cx - hilum[0])))
    start = hilum + 0.3 * (np.array([cx, cy]) - hilum)
    bronchi = site.canvas.blank()
    for curves, width in branches(rng, start, 2 * side - 1, (heading - 0.5, heading + 0.5), 3, 0.075, 0.013, 3):
        site.canvas.stroke(curves, width, onto=bronchi)
    mottle = 0.88 + 0.07 * site.canvas.clouds(rng, 0.02)
    density = density * np.clip(mottle, 0, 1) * (1 - 0.5 * site.canvas.soft(bronchi, 0.002))
    return density * site.lungs[side]


def pneumothorax(site: Site, rng: np.random.Generator) -> Pneumothorax:
    """The lung has sunk from the apex and the ribs; between them air without vessels."""
    side = int(rng.integers(2))
    outline = site.anatomy.lungs[side]
    top = outline[:, 1].min()
    bottom = outline[:, 1].max()
    reach = rng.uniform(0.75, 1.0)
    sunk = rng.uniform(0.24, 0.4) * np.clip(1 - (outline[:, 1] - top) / (reach * (bottom - top)), 0, 1) ** 0.6
    sunk[site.anatomy.diaphragm] = 0  # the lung keeps lying on it
    # sinks towards the mediastinum sideways, towards the hilum downwards
    anchor = np.array([0.5 + (2 * side - 1) * 0.045, site.anatomy.hila[side][1]])
    below = outline[:, 1] > anchor[1]
    edge = outline + sunk[:, None] * (anchor - outline) * np.stack([np.ones_like(sunk), np.where(below, 0, 0.8)], 1)
    # where it still touches the chest its outline is taken well beyond, or a rim of air would remain there
    touching = sunk < 0.02
    away = outline[touching] - anchor
    edge[touching] += 0.03 * away / np.linalg.norm(away, axis=1, keepdims=True)
    canvas = site.canvas
    lung = site.lungs[side]
    air = lung * (1 - canvas.soft(canvas.fill(edge), 0.002))
    air = air * (air > 0.15)
    freed = ~touching & (np.linalg.norm(edge - outline, axis=1) > 0.012)
    visceral = canvas.stroke(edge[freed], 0.006)
    return Pneumothorax(side, air, canvas.soft(visceral, 0.0015) * lung)


DENSITIES: dict[str, Callable[[Site, np.random.Generator], Layer]] = {
    "Atelectasis": atelectasis,
    "Effusion": effusion,
    "Infiltration": infiltration,
    "Mass": mass,
    "Nodule": nodule,
    "Pneumonia": pneumonia,
}
