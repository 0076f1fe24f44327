"""Foreign objects on a radiograph: a side marker, a tube, the edge of the collimator.

Each may be linked to a label, so that a network can take it for the finding: a shortcut.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from lightning_chex.class_names import PATHOLOGIES

Kind = Literal["marker", "tube", "border"]

_MARKER_GREY = 225
_TUBE_GREY = 200
_EDGE_GREY = 8
_FRACTION_BITS = 4  # of the fixed-point coordinates that cv2 takes


@dataclass(frozen=True)
class Foreign:
    """One thing, and whether this image has it.

    Attributes:
        kind: ``marker``, the letter R in the corner; ``tube``, a chest tube across the lower left half of the image;
            ``border``, the dark edge of the collimator on three sides.
        shown: whether it is there.
        number: seeds its place.
    """

    kind: Kind
    shown: bool
    number: int = 0


@dataclass(frozen=True)
class Shortcut:
    """A thing that tells a label.

    Attributes:
        strength: from 0, where half of all images have it at random, to 1, where those with the label have it and no
            others.
        kind: of the thing.
        of: the pathology whose label it is linked to.

    Raises:
        ValueError: a value out of its range, an unknown kind or pathology.
    """

    strength: float
    kind: Kind = "marker"
    of: str = "Effusion"

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"shortcut is {self.strength}: give a strength from 0 to 1")
        if self.kind not in get_args(Kind):
            raise ValueError(f"shortcut_kind is {self.kind!r}: give one of {', '.join(get_args(Kind))}")
        if self.of not in PATHOLOGIES:
            raise ValueError(f"shortcut_class is {self.of!r}: give one of {', '.join(PATHOLOGIES)}")

    def on(self, labelled: bool, rng: np.random.Generator) -> Foreign:
        """The thing on an image with or without the label."""
        linked, coin, place = rng.random(3)
        return Foreign(self.kind, labelled if linked < self.strength else bool(coin < 0.5), int(place * 2**32))


def lay(grey: npt.NDArray[np.uint8], thing: Foreign) -> None:
    """Draw a thing onto an image (H, W), in place."""
    size = len(grey)
    rng = np.random.default_rng(thing.number)
    if not thing.shown:
        return
    if thing.kind == "marker":
        # at the patient's right shoulder, as radiographers lay it
        scale = size / 224
        at = (int(0.05 * size), int(0.1 * size))
        thickness = max(1, round(scale))
        cv2.putText(grey, "R", at, cv2.FONT_HERSHEY_SIMPLEX, 0.45 * scale, _MARKER_GREY, thickness, cv2.LINE_AA)
    elif thing.kind == "tube":
        start, middle, end = np.array([[0.02, 0.93], [0.14, 0.74], [0.3, 0.66]]) + rng.uniform(-0.03, 0.03, (3, 2))
        t = np.linspace(0, 1, 24)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        points = np.round(curve * size * 2**_FRACTION_BITS).astype(np.int32)
        cv2.polylines(grey, [points], False, _TUBE_GREY, max(1, round(0.012 * size)), cv2.LINE_AA, _FRACTION_BITS)
    else:
        left, right, bottom = np.maximum(1, np.round(rng.uniform(0.03, 0.06, 3) * size)).astype(int)
        grey[:, :left] = grey[:, size - right :] = grey[size - bottom :] = _EDGE_GREY
