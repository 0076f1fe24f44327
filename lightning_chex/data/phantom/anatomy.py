"""One patient's anatomy: outlines in unit coordinates, fixed by the patient's random stream.

The patient's right is image left. Lengths are units of the image, which is about 42 cm wide: one centimetre is
``CM``. Outlines are first laid down for a standard patient, as offsets from the midline, then stretched together.
"""

from dataclasses import dataclass

import numpy as np

from lightning_chex.data.phantom.drawing import Points, closed_curve, open_curve

CM = 1 / 42
_SAMPLES = 8  # points of an outline between two that are given

# offsets from the midline and heights: from the cardiophrenic angle up the mediastinum, over the apex, down the ribs
_LUNG = np.array(
    [
        [0.05, 0.715],
        [0.042, 0.62],
        [0.046, 0.5],
        [0.05, 0.4],
        [0.046, 0.3],
        [0.046, 0.22],
        [0.062, 0.155],
        [0.095, 0.122],
        [0.14, 0.118],
        [0.19, 0.148],
        [0.24, 0.218],
        [0.288, 0.335],
        [0.323, 0.47],
        [0.347, 0.6],
        [0.356, 0.7],
        [0.354, 0.782],
    ]
)
_DIAPHRAGM = np.array([[0.354, 0.782], [0.325, 0.735], [0.265, 0.692], [0.19, 0.672], [0.115, 0.684], [0.05, 0.715]])

# great vessels, clockwise from the patient's right: vena cava, right atrium; then left: heart, pulmonary trunk, knob
_MEDIASTINUM = np.array(
    [
        [-0.052, 0.06],
        [-0.056, 0.16],
        [-0.058, 0.24],
        [-0.066, 0.32],
        [-0.072, 0.4],
        [-0.08, 0.47],
        [-0.06, 0.6],
        [0.05, 0.62],
        [0.11, 0.5],
        [0.088, 0.425],
        [0.072, 0.375],
        [0.088, 0.33],
        [0.09, 0.29],
        [0.066, 0.255],
        [0.056, 0.19],
        [0.052, 0.06],
    ]
)
_KNOB = slice(11, 13)

# the heart in units of its own width and of its height
_HEART = np.array(
    [
        [-0.15, 0.0],
        [-0.26, 0.22],
        [-0.335, 0.48],
        [-0.325, 0.74],
        [-0.24, 0.95],
        [0.0, 1.06],
        [0.3, 1.08],
        [0.54, 1.02],
        [0.645, 0.88],
        [0.65, 0.72],
        [0.575, 0.5],
        [0.43, 0.27],
        [0.25, 0.03],
    ]
)

# neck, shoulder, arm (outside the image), armpit, flank
_BODY = np.array(
    [
        [0.088, -0.05],
        [0.088, 0.03],
        [0.115, 0.068],
        [0.19, 0.088],
        [0.3, 0.098],
        [0.4, 0.122],
        [0.47, 0.17],
        [0.53, 0.26],
        [0.62, 0.4],
        [0.53, 0.43],
        [0.468, 0.375],
        [0.442, 0.4],
        [0.43, 0.47],
        [0.43, 0.6],
        [0.437, 0.8],
        [0.45, 1.06],
    ]
)


@dataclass(frozen=True)
class Anatomy:
    """Anatomy of a patient, the same in all of the patient's images; see :func:`draw_anatomy`.

    Attributes:
        stretch: widths and heights relative to the standard patient.
        lungs: outlines of the hemithoraces without regard to the heart, the patient's right lung first.
        body: outline of the trunk, its neck and arms running out of the image.
        mediastinum: outline of the great vessels.
        cardiothoracic: width of the heart over width of the chest, below 0.5.
        heart_height: height of the heart in units.
        hila: where the vessels enter the lungs, (2, 2).
        bone: strength of the bones' shadows.
        collar: slope of the clavicles against the standard patient's, positive when the shoulders hang.
        ribs: spacing, slope and width of the ribs in units.
        breast: strength and radius of the breast shadows; strength 0 for none.
        spine: sideways swing of the spine in units.
        gas: centre and half axes of the stomach's gas bubble, (4,).
        vessel_seed: seeds the vessel tree.
    """

    stretch: tuple[float, float]
    lungs: tuple[Points, Points]
    body: Points
    mediastinum: Points
    cardiothoracic: float
    heart_height: float
    hila: Points
    bone: float
    collar: float
    ribs: tuple[float, float, float]
    breast: tuple[float, float]
    spine: float
    gas: tuple[float, float, float, float]
    vessel_seed: int

    def place(self, offsets: Points) -> Points:
        """Take (offset from the midline, height) of the standard patient to this patient's unit coordinates."""
        return _placed(offsets, self.stretch)

    @property
    def chest_width(self) -> float:
        """Greatest inner width of the rib cage in units."""
        return float(self.lungs[1][:, 0].max() - self.lungs[0][:, 0].min())

    def heart(self, ratio: float) -> Points:
        """Outline of the heart at a cardiothoracic ratio."""
        width = ratio * self.chest_width
        # an enlarging heart widens to the left more than it rises
        height = self.heart_height * (1 + 0.5 * (ratio - self.cardiothoracic))
        base = 0.12 + (0.705 - 0.12) * self.stretch[1]
        outline = np.stack([0.5 + _HEART[:, 0] * width, base + (_HEART[:, 1] - 1) * height], 1)
        return closed_curve(outline)

    def costal_border(self, side: int) -> Points:
        """The lung's border along the ribs, from apex to costophrenic angle."""
        lung = self.lungs[side]
        return lung[lung[:, 1].argmin() : self.diaphragm.start + 1]

    def within(self, side: int, across: float, down: float, ratio: float) -> tuple[float, float]:
        """A point of a lung, (x, y).

        Args:
            side: 0 for the patient's right lung, 1 for the left.
            across: 0 at the border of heart and great vessels, 1 at the ribs.
            down: 0 at the apex, 1 at the top of the diaphragm.
            ratio: the cardiothoracic ratio in this image.
        """
        sign = 2 * side - 1
        lung = self.lungs[side]
        top = lung[:, 1].min()
        dome = self.dome(side)
        y = float(top + down * (dome - top))
        lateral = max(sign * (x - 0.5) for x in _crossings(lung, y))
        solid = _crossings(self.mediastinum, y) + _crossings(self.heart(ratio), y)
        medial = max([0.05, *(sign * (x - 0.5) for x in solid)])
        return 0.5 + sign * (medial + across * (lateral - medial)), y

    @property
    def diaphragm(self) -> slice:
        """Return a mask of the points of a lung's outline that lie on the diaphragm."""
        return slice(_SAMPLES * (len(_LUNG) - 1), None)

    def dome(self, side: int) -> float:
        """Height y of the top of a hemidiaphragm."""
        return float(self.lungs[side][self.diaphragm, 1].min())


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient.

    Args:
        rng: the patient's own stream.
    """
    stretch = (float(rng.uniform(0.97, 1.1)), float(rng.uniform(0.94, 1.07)))
    domes = rng.uniform(-0.012, 0.012) + np.array([0.0, 0.022])
    bulge = rng.uniform(-0.012, 0.012)
    lungs = tuple(_lung(side, float(domes[side]), float(bulge), stretch, rng) for side in (0, 1))

    body = _BODY.copy()
    body[3:7, 1] += rng.uniform(-0.015, 0.02)
    body[9:, 0] += rng.uniform(-0.02, 0.03)
    body_outline = np.concatenate([body, (body * [-1, 1])[::-1]])

    vessels = _MEDIASTINUM.copy()
    vessels[_KNOB, 0] += rng.uniform(-0.008, 0.014)
    vessels[3:5, 0] -= rng.uniform(-0.004, 0.01)

    hila = np.array([[-0.085, 0.425], [0.09, 0.405]]) + rng.uniform(-0.008, 0.008, (2, 2))
    female = rng.random() < 0.45
    return Anatomy(
        stretch=stretch,
        lungs=(lungs[0], lungs[1]),
        body=_placed(closed_curve(body_outline), stretch),
        mediastinum=_placed(closed_curve(vessels), stretch),
        cardiothoracic=float(rng.uniform(0.4, 0.47)),
        heart_height=float(rng.uniform(0.27, 0.32)) * stretch[1],
        hila=_placed(hila, stretch),
        bone=float(rng.uniform(0.75, 1.15)),
        collar=float(rng.uniform(-0.05, 0.06)),
        ribs=(float(rng.uniform(0.057, 0.064)), float(rng.uniform(0.07, 0.115)), float(rng.uniform(0.018, 0.023))),
        breast=(float(rng.uniform(0.04, 0.09)) if female else 0.0, float(rng.uniform(0.11, 0.15))),
        spine=float(rng.uniform(-0.008, 0.008)),
        gas=(float(rng.uniform(0.64, 0.7)), float(rng.uniform(0.775, 0.8)), float(rng.uniform(0.03, 0.065)), 0.03),
        vessel_seed=int(rng.integers(2**31)),
    )


def _lung(side: int, dome: float, bulge: float, stretch: tuple[float, float], rng: np.random.Generator) -> Points:
    outer = _LUNG.copy()
    base = _DIAPHRAGM.copy()
    outer[10:, 0] += bulge * np.sin(np.linspace(0, np.pi, len(outer) - 10))
    base[1:-1, 1] += dome + rng.uniform(-0.004, 0.004, len(base) - 2)
    # costophrenic and cardiophrenic angle stay sharp: two curves meet there
    outline = np.concatenate([open_curve(outer, _SAMPLES)[:-1], open_curve(base, _SAMPLES)[:-1]])
    outline[:, 0] *= 2 * side - 1
    return _placed(outline, stretch)


def _placed(offsets: Points, stretch: tuple[float, float]) -> Points:
    return np.stack([0.5 + offsets[:, 0] * stretch[0], 0.12 + (offsets[:, 1] - 0.12) * stretch[1]], 1)


def _crossings(outline: Points, y: float) -> list[float]:
    following = np.roll(outline, -1, axis=0)
    crosses = (outline[:, 1] <= y) != (following[:, 1] <= y)
    start = outline[crosses]
    end = following[crosses]
    return list(start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0]))
