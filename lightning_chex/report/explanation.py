"""One explained image: what pictures, tables and dashboards are made from."""

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
"""Stands wherever bits are shown."""


@dataclass(frozen=True)
class Explanation:
    """One saliency map with what is needed to show and judge it; all tensors on the CPU.

    Attributes:
        image_id: the image's name.
        image: grey values in [0, 1], float32 (H, W).
        saliency: float32 (H, W), in ``unit``.
        target: index of the explained class, None for a score.
        target_name: what is explained, for people.
        prediction: the model's probability of the class, or its score.
        truth: the label of the class, or the true score.
        boxes: expert boxes of the explained class, float32 (N, 4) x1, y1, x2, y2 in pixels; N may be 0.
        iou: IoU of the strongest pixels with the boxes, None without boxes.
        convergence: relative change of the map over the last fifth of the optimisation steps; None for methods that do
            not iterate.
        place: where the image stands among those that are shown, by which they are ordered.
        pointing: whether the strongest pixel lies in a box or another region, 1 or 0 (a share where several pixels are
            strongest); None without regions.
        method: what the map was made with, as the logged keys name it.
        unit: what a value of the map means.
        mark: stands for the image where its name must not, see ``callbacks/shown.py``.
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
        """Total information in the map; see ``BITS_NOTE`` for what it compares with. In another unit the map's sum."""
        return float(self.saliency.sum())

    @property
    def empty(self) -> bool:
        """Whether the map holds too little to say anything, see ``lightning_chex/attribution/emptiness.py``."""
        return bool(empty_maps(self.saliency, self.unit))

    @property
    def amount(self) -> str:
        """Return the total of the map with its unit as text; ``empty map`` where it is too small to mean anything."""
        amount = f"{self.bits:.0f} bits" if self.unit == BITS else f"sum {self.bits:.3g}"
        return f"empty map, {amount}" if self.empty else amount

    @property
    def figures(self) -> list[str]:
        """Prediction, amount and, where there are boxes, IoU, each short enough for a small picture."""
        predicted = f"score {self.prediction:.2f}" if self.target is None else f"p {self.prediction:.2f}"
        parts = [predicted, self.amount]
        if self.iou is not None:
            parts.append(f"IoU {self.iou:.2f}")
        return parts

    @property
    def true_label(self) -> str:
        """The truth, for people."""
        return "truth unknown" if math.isnan(self.truth) else f"true {self.truth:g}"

    @property
    def caption(self) -> str:
        """One line that says what is shown."""
        predicted, *others = self.figures
        return " | ".join([self.target_name, predicted, self.true_label, *others])
