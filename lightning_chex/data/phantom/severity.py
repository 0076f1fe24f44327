"""Six Brixia zones and the opacities that go with their scores."""

import numpy as np
import numpy.typing as npt

from lightning_chex.data.phantom.drawing import Canvas, Layer, step

Mask = npt.NDArray[np.bool_]
ZONES = 6

# per score: density of the interstitial net, density of the alveolar patches, their share of the zone
_OPACITY = {0: (0.0, 0.0, 0.0), 1: (0.4, 0.0, 0.0), 2: (0.45, 0.5, 0.4), 3: (0.35, 0.8, 0.7)}


def zone_masks(lungs: Mask) -> Mask:
    """Cut each lung into three parts of equal height.

    Args:
        lungs: bool (2, H, W), the patient's right lung first; neither empty.

    Returns:
        bool (6, H, W), zones A to F: the right lung from top to bottom, then the left.
    """
    zones = np.zeros((ZONES, *lungs.shape[1:]), bool)
    for side, lung in enumerate(lungs):
        rows = np.flatnonzero(lung.any(axis=1))
        cuts = np.linspace(rows[0], rows[-1] + 1, 4).round().astype(int)
        for third in range(3):
            zones[3 * side + third, cuts[third] : cuts[third + 1]] = lung[cuts[third] : cuts[third + 1]]
    return zones


def draw_scores(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw the scores (6,) of one image: a latent severity drives all zones, bases worse than apices."""
    severity = rng.uniform(-0.9, 3.3)
    bases_worse = np.array([-0.5, 0.0, 0.45, -0.5, 0.0, 0.45])
    sides = np.repeat(rng.normal(0, 0.35, 2), 3)
    latent = severity + bases_worse + sides + rng.normal(0, 0.4, ZONES)
    return np.clip(np.round(latent), 0, 3).astype(np.int64)


def opacities(canvas: Canvas, lungs: Mask, scores: npt.NDArray[np.int64], rng: np.random.Generator) -> Layer:
    """Density (H, W) in [0, 1] of all zones: a net for interstitial disease, patches for alveolar disease."""
    fine = canvas.clouds(rng, 0.024) + 0.5 * canvas.clouds(rng, 0.012)
    # the zero crossings of a random field are a net of fine curved lines
    net = np.exp(-((fine / np.float32(0.36)) ** 2))
    coarse = canvas.clouds(rng, 0.05) + 0.4 * canvas.clouds(rng, 0.02)
    total = np.zeros_like(net)
    for zone, score in zip(zone_masks(lungs), scores, strict=True):
        interstitial, alveolar, share = _OPACITY[int(score)]
        if not score:
            continue
        soft = canvas.soft(zone.astype(np.uint8) * 255, 0.015)
        # a cloud's value exceeds the threshold on about ``share`` of the area
        patches = step(coarse + np.float32(3.0 * (share - 0.5)), 1.3)
        density = 1 - (1 - interstitial * net) * (1 - alveolar * patches)
        total = np.maximum(total, soft * density)
    return total * lungs.any(axis=0)
