"""Six Brixia zones and the opacities that go with their scores."""

import numpy as np
import numpy.typing as npt

from lightning_chex.data.images.lung_masks import NUM_ZONES, Mask, zone_masks
from lightning_chex.data.phantom.drawing import Canvas, Layer, step

_MESH = 0.023  # units between septa

# of each score above 0: density of the interstitial net, density of the alveolar patches, their share of the zone
_OPACITY = {1: (0.5, 0.0, 0.0), 2: (0.5, 0.65, 0.35), 3: (0.45, 0.85, 0.72)}


def draw_scores(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw the scores (6,) of one image: a latent severity drives all zones, bases worse than apices."""
    severity = rng.uniform(-0.9, 3.3)
    bases_worse = np.array([-0.5, 0.0, 0.45, -0.5, 0.0, 0.45])
    sides = np.repeat(rng.normal(0, 0.35, 2), 3)
    latent = severity + bases_worse + sides + rng.normal(0, 0.4, NUM_ZONES)
    return np.clip(np.round(latent), 0, 3).astype(np.int64)


def opacities(canvas: Canvas, lungs: Mask, scores: npt.NDArray[np.int64], rng: np.random.Generator) -> Layer:
    """Density (H, W) in [0, 1] of all zones: a net for interstitial disease, patches for alveolar disease."""
    net = _net(canvas, lungs, rng)
    coarse = canvas.clouds(rng, 0.05) + 0.4 * canvas.clouds(rng, 0.02)
    zones = zone_masks(lungs)
    total = np.zeros_like(net)
    for score, (interstitial, alveolar, share) in _OPACITY.items():
        affected = zones[scores == score].any(axis=0)
        if affected.any():
            soft = canvas.soft(affected.view(np.uint8) * np.uint8(255), 0.015)
            # a cloud's value exceeds the threshold on about ``share`` of the area
            patches = step(coarse + 3.0 * (share - 0.5), 1.3)
            total = np.maximum(total, soft * (1 - (1 - interstitial * net) * (1 - alveolar * patches)))
    return total * (lungs[0] | lungs[1])


def _net(canvas: Canvas, lungs: Mask, rng: np.random.Generator) -> Layer:
    """Thickened septa: short lines in all directions, one to a mesh, over a faint veil; (H, W) in [0, 1]."""
    steps = np.arange(0.5 * _MESH, 1, _MESH)
    centres = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    centres = centres + rng.uniform(-0.5, 0.5, centres.shape) * _MESH
    angle = rng.uniform(0, np.pi, len(centres))
    half = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.6, 1.3, (len(centres), 1)) * _MESH
    bend = rng.uniform(-0.3, 0.3, centres.shape) * _MESH
    column, row = np.clip(np.rint(canvas.pixels(centres)), 0, canvas.size - 1).astype(int).T
    inside = (lungs[0] | lungs[1])[row, column]
    lines = np.stack([centres - half, centres + bend, centres + half], 1)[inside]
    strength = np.clip(0.9 + 0.3 * canvas.clouds(rng, 0.05), 0.3, 1.5)
    return np.minimum(1, 0.22 + canvas.soft(canvas.stroke(lines, 0.003), 0.0022) * strength)
