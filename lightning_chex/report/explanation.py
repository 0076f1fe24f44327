"""One explained image, from which pictures, tables and dashboards are made."""

import math
from dataclasses import dataclass

from torch import Tensor

from lightning_chex.attribution.emptiness import BITS_PER_PIXEL, empty_maps

BITS = BITS_PER_PIXEL
"""The unit in which maps of different images, epochs and bottlenecks of one setting compare."""

BITS_NOTE = (
    "Bits of maps compare only within one version of this program and one setting of the method (objective, beta, "
    "layer, steps), and with the paper's only in its own setting (configs/paper)."
)
"""Note wherever bits are shown."""


@dataclass(frozen=True)
class Explanation:
    """One saliency map with its image, regions and measures; all tensors on the CPU.

    Attributes:
        image_id: the image's name.
        image: grey values in [0, 1], float32 (H, W).
        saliency: float32 (H, W), in ``unit``.
        target: index of the explained class, None for a score.
        target_name: name of the explained class or score.
        prediction: the model's probability of the class, or its score.
        truth: the label of the class, or the true score.
        boxes: expert boxes of the explained class, float32 (N, 4) x1, y1, x2, y2 in pixels; N may be 0.
        iou: IoU of the strongest pixels with the boxes, None without boxes.
        convergence: relative change of the map over the last fifth of the optimisation steps; None for methods that do
            not iterate.
        place: position of the image among those that are shown.
        pointing: whether the strongest pixel lies in a box or another region, 1 or 0 (a share where several pixels are
            strongest); None without regions.
        method: what the map was made with, as the logged keys name it.
        unit: of the values of the map.
        mark: identifies the image where its name must not appear, such as in frames of a film strip.
    """

    image_id: str
    image: Tensor
    saliency: Tensor
    target: int | None
    target_name: str
    prediction: float
    truth: float
    boxes: Tensor
    iou: float | None
    convergence: float | None = None
    place: int = 0
    pointing: float | None = None
    method: str = "iba"
    unit: str = BITS
    mark: str = ""

    @property
    def bits(self) -> float:
        """Sum of the map: its information in bits, see ``BITS_NOTE``, or the sum of its values in another unit."""
        return float(self.saliency.sum())

    @property
    def empty(self) -> bool:
        """Whether the map holds too little to mean anything, see ``lightning_chex/attribution/emptiness.py``."""
        return bool(empty_maps(self.saliency, self.unit))

    @property
    def amount(self) -> str:
        """Total of the map with its unit as text; begins with ``empty map`` where it is too small to mean anything."""
        amount = f"{self.bits:.0f} bits" if self.unit == BITS else f"sum {self.bits:.3g}"
        if self.empty:
            return f"empty map, {amount}"
        return amount

    @property
    def figures(self) -> list[str]:
        """Prediction, amount and, where there are boxes, IoU, each short enough for a small picture."""
        # of a score the model gives the value itself, of a class its probability
        quantity = "score" if self.target is None else "p"
        figures = [f"{quantity} {self.prediction:.2f}", self.amount]
        if self.iou is not None:
            figures.append(f"IoU {self.iou:.2f}")
        return figures

    @property
    def true_label(self) -> str:
        """Label of the class, or true score, as text."""
        if math.isnan(self.truth):
            return "truth unknown"
        return f"true {self.truth:g}"

    @property
    def caption(self) -> str:
        """Target, prediction, truth and the other figures in one line."""
        prediction, *further = self.figures
        return " | ".join([self.target_name, prediction, self.true_label, *further])
