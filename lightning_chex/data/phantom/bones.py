"""The skeleton of the chest, as attenuation to add."""

import numpy as np
import numpy.typing as npt

from lightning_chex.data.phantom.anatomy import Anatomy
from lightning_chex.data.phantom.drawing import Canvas, Layer, Points, open_curve, ribbon

_RIBS = 10
_LAST_BONY_FRONT = 5

# offsets from the midline and heights of the standard patient
_CLAVICLE = np.array([[0.038, 0.2], [0.1, 0.19], [0.18, 0.155], [0.27, 0.137], [0.35, 0.143], [0.42, 0.155]])
_SHOULDER_BLADE = np.array(
    [[0.25, 0.15], [0.36, 0.14], [0.43, 0.19], [0.4, 0.28], [0.375, 0.42], [0.35, 0.41], [0.31, 0.27]]
)
_UPPER_ARM = np.array([[0.42, 0.14], [0.47, 0.15], [0.53, 0.2], [0.56, 0.3], [0.5, 0.28], [0.44, 0.22]])


def ribs(canvas: Canvas, anatomy: Anatomy) -> Layer:
    """Ribs, from the spine around the chest to their cartilage."""
    back = canvas.blank()
    front = canvas.blank()
    edges = canvas.blank()
    width = anatomy.ribs[2]
    for side in (0, 1):
        posterior, anterior = _rib_curves(anatomy, side)
        bands = ribbon(posterior, width)
        canvas.fill(bands, onto=back)
        canvas.fill(ribbon(anterior, np.linspace(0.9, 1.15, anterior.shape[1]) * width), onto=front)
        # the cortex is denser than what it encloses
        canvas.stroke(bands.reshape(2 * len(bands), -1, 2), 0.003, onto=edges)
    bones = 0.11 * canvas.soft(back, 0.003) + 0.065 * canvas.soft(front, 0.004) + 0.05 * canvas.soft(edges, 0.0025)
    return np.float32(anatomy.bone) * bones


def _rib_curves(anatomy: Anatomy, side: int) -> tuple[Points, Points]:
    spacing, slope, _ = anatomy.ribs
    costal = anatomy.costal_border(side)
    number = np.arange(_RIBS)
    start = 0.135 + spacing * number
    end = start + slope * np.minimum(1.0, 0.45 + 0.2 * number)
    # the rib turns forward a little outside the lung's border
    lateral = np.interp(end, costal[:, 1], np.abs(costal[:, 0] - 0.5)) + 0.006
    arch = 0.034 * (1 - number / _RIBS)
    shoulder = end - 0.6 * (end - start) - 0.2 * arch
    back = _bezier(
        [np.full(_RIBS, 0.045), 0.55 * lateral, 0.95 * lateral, lateral], [start, start - arch, shoulder, end]
    )
    reach = 0.12 + 0.014 * number
    drop = end + 0.115 + 0.006 * number
    front = _bezier([lateral, lateral, 0.8 * lateral, reach], [end, end + 0.05, end + 0.1, drop])
    mirror = [2 * side - 1, 1]
    # lower ribs end in cartilage, which casts no shadow
    return back * mirror + [0.5, 0], front[: _LAST_BONY_FRONT + 1] * mirror + [0.5, 0]


def _bezier(x: list[npt.NDArray[np.floating]], y: list[npt.NDArray[np.floating]]) -> Points:
    """Cubic curves (K, 14, 2) with four control points, each given for all K curves."""
    t = np.linspace(0, 1, 14)
    weights = np.stack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
    return np.stack([np.stack(x, 1) @ weights, np.stack(y, 1) @ weights], -1)


def shoulders_and_spine(canvas: Canvas, anatomy: Anatomy) -> Layer:
    """Clavicles, shoulder blades and the vertebral column."""
    collars = canvas.blank()
    outlines = canvas.blank()
    blades = canvas.blank()
    tilted = _CLAVICLE + np.outer(_CLAVICLE[:, 0] - 0.04, [0, anatomy.collar])
    for sign in (-1, 1):
        clavicle = open_curve(anatomy.place(tilted * [sign, 1]))
        along = np.linspace(0, 1, len(clavicle))
        band = ribbon(clavicle, np.interp(along, [0, 0.12, 0.5, 0.9, 1], [0.034, 0.026, 0.019, 0.026, 0.008]))
        canvas.fill(band, onto=collars)
        canvas.stroke(band, 0.003, onto=outlines)
        for bone in (_SHOULDER_BLADE, _UPPER_ARM):
            canvas.fill(open_curve(anatomy.place(bone * [sign, 1])), onto=blades)
    shadow = 0.08 * canvas.soft(collars, 0.003) + 0.05 * canvas.soft(outlines, 0.002)
    shadow += 0.05 * canvas.soft(blades, 0.005) + _spine(canvas, anatomy)
    return np.float32(anatomy.bone) * shadow


def _spine(canvas: Canvas, anatomy: Anatomy) -> Layer:
    heights = np.linspace(-0.02, 1.02, 22)
    column = np.stack([0.5 + anatomy.spine * np.sin(heights * 5), heights], 1)
    bodies = canvas.fill(ribbon(column, np.interp(heights, [0, 1], [0.07, 0.095])))
    pitch = 0.052 * anatomy.stretch[1]
    levels = np.arange(0.03, 1.0, pitch)
    centres = np.stack([0.5 + anatomy.spine * np.sin(levels * 5), levels], 1)[:, None]
    discs = canvas.stroke(centres + [[-0.036, 0], [0.036, 0]], 0.008)
    pedicle = np.array([[0, 0.3 * pitch], [0, 0.5 * pitch]])
    knobs = canvas.stroke(np.concatenate([centres + pedicle - [0.023, 0], centres + pedicle + [0.023, 0]]), 0.009)
    return 0.06 * canvas.soft(bodies, 0.006) - 0.035 * canvas.soft(discs, 0.004) + 0.03 * canvas.soft(knobs, 0.003)
