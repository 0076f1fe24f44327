"""Drawing primitives: unit coordinates, the pose that maps them to pixels, curves, and smooth random fields."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Layer = npt.NDArray[np.float32]  # (H, W), mostly in [0, 1]
Points = npt.NDArray[np.float64]  # (..., 2): x, y in unit coordinates, the image is [0, 1] x [0, 1], y downwards

_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Pose:
    """Position of the patient in front of the detector.

    Args:
        angle: rotation in radians, clockwise in the image.
        scale: magnification.
        shift: displacement (x, y) in units of the image.
    """

    angle: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


class Canvas:
    """Turns unit coordinates into pixels of one image; every shape passes here, so one pose holds for all.

    Args:
        size: height and width in pixels.
        pose: the patient's pose in this image.
    """

    def __init__(self, size: int, pose: Pose) -> None:
        self.size = size
        self.pose = pose
        cos = math.cos(pose.angle) * pose.scale
        sin = math.sin(pose.angle) * pose.scale
        self._matrix = np.array([[cos, -sin], [sin, cos]])
        self._to_pixels = self._matrix.T * size
        self._offset = (0.5 - 0.5 * self._matrix.sum(axis=1) + np.asarray(pose.shift)) * size - 0.5

    def pixels(self, points: Points) -> Points:
        """Pixel coordinates (..., 2) of unit coordinates (..., 2); whole numbers are pixel centres."""
        return points @ self._to_pixels + self._offset

    @cached_property
    def grid(self) -> tuple[Layer, Layer]:
        """Unit coordinates x and y of each pixel centre, each float32 (H, W)."""
        inverse = np.linalg.inv(self._matrix)
        axis = (np.arange(self.size) + 0.5) / self.size - 0.5
        across = axis - self.pose.shift[0]
        down = (axis - self.pose.shift[1])[:, None]
        x = inverse[0, 0] * across + inverse[0, 1] * down + 0.5
        y = inverse[1, 0] * across + inverse[1, 1] * down + 0.5
        return x.astype(np.float32), y.astype(np.float32)

    def blank(self) -> npt.NDArray[np.uint8]:
        """A black 8-bit layer (H, W) to draw on."""
        return np.zeros((self.size, self.size), np.uint8)

    def _paths(self, points: Points) -> list[npt.NDArray[np.int32]]:
        fixed = np.rint(self.pixels(points) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        return [fixed] if fixed.ndim == 2 else list(fixed)

    def fill(self, outlines: Points, onto: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """Fill one closed outline (N, 2) or several (K, N, 2) with 255, antialiased; overlapping ones join."""
        layer = self.blank() if onto is None else onto
        for path in self._paths(outlines):
            cv2.fillPoly(layer, [path], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return layer

    def stroke(
        self, curves: Points, width: float, strength: float = 1.0, onto: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Draw one open curve (N, 2) or several (K, N, 2) of one width; thinner than a pixel, they become fainter."""
        layer = self.blank() if onto is None else onto
        pixels = width * self.size * self.pose.scale
        grey = int(255 * strength * min(1.0, pixels))
        thickness = max(1, round(pixels))
        cv2.polylines(layer, self._paths(curves), False, grey, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        return layer

    def around(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns of the square that surely holds all within ``reach`` of a point; never empty."""
        column, row = self.pixels(np.array([x, y]))
        half = reach * self.pose.scale * self.size + 1
        return self._span(row, half), self._span(column, half)

    def _span(self, centre: float, half: float) -> slice:
        first = int(np.clip(math.floor(centre - half), 0, self.size - 1))
        return slice(first, int(np.clip(math.ceil(centre + half) + 1, first + 1, self.size)))

    def soft(self, layer: npt.NDArray[np.uint8], sigma: float) -> Layer:
        """An 8-bit layer as float32 in [0, 1], blurred by ``sigma`` units."""
        pixels = sigma * self.size
        if pixels < 0.3:
            return layer.astype(np.float32) * np.float32(1 / 255)
        shrink = int(pixels / 2)
        if shrink <= 1:
            return cv2.GaussianBlur(layer, (0, 0), pixels).astype(np.float32) * np.float32(1 / 255)
        # a wide blur leaves nothing that a coarse grid could not hold, and costs a fraction there
        coarse = max(8, self.size // shrink)
        small = cv2.resize(layer, (coarse, coarse), interpolation=cv2.INTER_AREA).astype(np.float32)
        small = cv2.GaussianBlur(small, (0, 0), sigma * coarse) * np.float32(1 / 255)
        return self._enlarge(small)

    def clouds(self, rng: np.random.Generator, scale: float) -> Layer:
        """A smooth random field (H, W), mean near 0, deviation near 1, with features of ``scale`` units."""
        cells = max(4, math.ceil(1 / scale) + 1)
        return self._enlarge(rng.standard_normal((cells, cells), dtype=np.float32)) * np.float32(1.4)

    def _enlarge(self, small: Layer) -> Layer:
        enlarged = cv2.resize(small, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        return np.asarray(enlarged, np.float32)


@lru_cache(maxsize=64)
def _spline_weights(samples: int) -> npt.NDArray[np.float64]:
    t = np.arange(samples) / samples
    return 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1)


def open_curve(points: Points, samples: int = 8) -> Points:
    """Smooth curve through points (N, 2), from the first to the last; ``samples`` points a segment."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    windows = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)])
    curve = np.einsum("sk,knd->nsd", _spline_weights(samples), windows).reshape(-1, 2)
    return np.concatenate([curve, points[-1:]])


def closed_curve(points: Points, samples: int = 8) -> Points:
    """Smooth closed outline through points (N, 2)."""
    windows = np.stack([np.roll(points, 1 - i, axis=0) for i in range(4)])
    return np.einsum("sk,knd->nsd", _spline_weights(samples), windows).reshape(-1, 2)


def ribbon(curves: Points, width: float | npt.NDArray[np.float64]) -> Points:
    """Outline (..., 2 N, 2) of a band around open curves (..., N, 2), of one width or one a point."""
    along = np.empty_like(curves)
    along[..., 1:-1, :] = curves[..., 2:, :] - curves[..., :-2, :]
    along[..., 0, :] = curves[..., 1, :] - curves[..., 0, :]
    along[..., -1, :] = curves[..., -1, :] - curves[..., -2, :]
    length = np.sqrt((along * along).sum(-1)) + 1e-9
    half = along[..., ::-1] * [-1, 1] * (0.5 * width / length)[..., None]
    return np.concatenate([curves + half, (curves - half)[..., ::-1, :]], axis=-2)


def step(values: npt.NDArray[np.floating], softness: float) -> Layer:
    """A soft step (H, W) from 0 to 1 where ``values`` cross 0, within about ``softness`` to either side."""
    t = np.multiply(values, np.float32(0.5 / softness), dtype=np.float32)
    t += np.float32(0.5)
    np.clip(t, 0, 1, out=t)
    slope = 3 - 2 * t
    t *= t
    t *= slope
    return t
