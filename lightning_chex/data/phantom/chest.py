"""The soft parts of the chest: trunk, airways, gas and the vessels of the lung."""

import numpy as np

from lightning_chex.data.phantom.anatomy import Anatomy
from lightning_chex.data.phantom.drawing import Canvas, Layer, Points, open_curve, ribbon, step

_BRANCHINGS = 5
_FAN = (-1.25, 1.45)  # radians


def soft_tissue(canvas: Canvas, anatomy: Anatomy) -> Layer:
    """Trunk, neck and shoulders without any air in them, about 0 (beside the patient) to 1."""
    x, y = canvas.grid
    body = canvas.soft(canvas.fill(anatomy.body), 0.004)
    # an elliptic cross-section: the path through the trunk shortens towards the flanks
    offset = (x - 0.5) * np.float32(1 / (0.475 * anatomy.stretch[0]))
    depth = np.sqrt(np.clip(1 - offset * offset, 0, 1))
    taper = 0.8 + 0.2 * step(y - 0.3, 0.3)
    tissue = body * (0.3 + 0.62 * depth) * taper
    strength, radius = anatomy.breast
    if strength:
        for sign in (-1, 1):
            cx, cy = anatomy.place(np.array([[sign * 0.225, 0.555]]))[0]
            near = canvas.around(cx, cy, 2 * radius)
            below = y[near] - cy
            distance = np.hypot(x[near] - cx, np.maximum(below, -0.6 * below))
            tissue[near] += strength * step(radius - distance, 0.05)
    return tissue


def airways(canvas: Canvas, anatomy: Anatomy) -> Layer:
    """Trachea and main bronchi, in [0, 1]."""
    trachea = anatomy.place(np.array([[0.002, -0.02], [0.0, 0.15], [-0.004, 0.28], [-0.006, 0.345]]))
    right = anatomy.place(np.array([[-0.006, 0.335], [-0.03, 0.375], [-0.07, 0.41]]))
    left = anatomy.place(np.array([[-0.006, 0.335], [0.03, 0.365], [0.085, 0.4]]))
    layer = canvas.blank()
    for path, width in ((trachea, 0.036), (right, 0.022), (left, 0.018)):
        canvas.fill(ribbon(open_curve(path), width), onto=layer)
    return canvas.soft(layer, 0.005)


def gas_bubble(canvas: Canvas, anatomy: Anatomy) -> Layer:
    """Gas in the stomach, under the left dome, in [0, 1]."""
    x, y = canvas.grid
    cx, cy, half_width, half_height = anatomy.gas
    bubble = np.zeros_like(x)
    near = canvas.around(cx, cy, 1.6 * max(half_width, half_height))
    bubble[near] = step(1 - np.hypot((x[near] - cx) / half_width, (y[near] - cy) / half_height), 0.5)
    return bubble


def vessels(canvas: Canvas, anatomy: Anatomy) -> Layer:
    """Hila, and the arteries and veins that branch, taper and fade from there, in [0, 1]."""
    rng = np.random.default_rng(anatomy.vessel_seed)
    layer = canvas.blank()
    trees = [branches(rng, anatomy.hila[side], 2 * side - 1, _FAN, 7, 0.095, 0.0115, _BRANCHINGS) for side in (0, 1)]
    for generation in reversed(range(_BRANCHINGS)):  # from fine to coarse: a trunk is not cut by its branches
        strength = 1 - 0.16 * generation
        for tree in trees:
            canvas.stroke(*tree[generation], strength=strength, onto=layer)
    x, y = canvas.grid
    shadow = canvas.soft(layer, 0.0025)
    for hx, hy in anatomy.hila:
        near = canvas.around(hx, hy, 0.13)
        distance = ((x[near] - np.float32(hx)) / np.float32(0.028)) ** 2
        distance += ((y[near] - np.float32(hy + 0.01)) / np.float32(0.05)) ** 2
        shadow[near] = np.maximum(shadow[near], 0.75 * shadow[near] + 0.6 * np.exp(-distance))
    return shadow


def branches(
    rng: np.random.Generator,
    root: Points,
    sign: int,
    fan: tuple[float, float],
    count: int,
    length: float,
    width: float,
    generations: int,
) -> list[tuple[Points, float]]:
    """Grow a tree that forks in two at every generation.

    Args:
        rng: decides angles and lengths.
        root: where the first branches begin, (2,).
        sign: -1 grows to the left, 1 to the right.
        fan: least and greatest angle of the first branches, radians, 0 is lateral, positive downwards.
        count: how many first branches.
        length: of the first branches, units.
        width: of the first branches, units.
        generations: how often to grow.

    Returns:
        For each generation its curves (K, 3, 2) and their width.
    """
    angles = np.linspace(*fan, count) + rng.uniform(-0.12, 0.12, count)
    starts = np.broadcast_to(root, (count, 2)) + rng.uniform(-0.01, 0.01, (count, 2))
    tree = []
    for _ in range(generations):
        reach = length * rng.uniform(0.75, 1.25, len(angles))[:, None]
        turn = angles + rng.uniform(-0.3, 0.3, len(angles))
        middles = starts + 0.5 * reach * np.stack([sign * np.cos(angles), np.sin(angles)], 1)
        ends = middles + 0.5 * reach * np.stack([sign * np.cos(turn), np.sin(turn)], 1)
        tree.append((np.stack([starts, middles, ends], 1), width))
        fork = rng.uniform(0.2, 0.55, len(angles))
        angles = np.concatenate([turn - fork, turn + fork])
        starts = np.concatenate([ends, ends])
        length = length * 0.72
        width = width * 0.66
    return tree
