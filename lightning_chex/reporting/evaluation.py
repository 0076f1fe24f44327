"""What an evaluation shows beside its numbers: curves, and images explained by every method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Curve:
    """One measure along an axis for one method, as in ``curves.csv``.

    Attributes:
        method: the method's or control's name.
        name: ``insertion``, ``deletion``, ``sensitivity_n``, ``iou_at_level``, ``road_morf``, ``road_lerf``,
            ``relevance_by_score`` or ``randomization``.
        x: places on the axis, increasing.
        value: means; None or NaN where nothing was counted.
        ci_low: lower ends of the 95 % intervals.
        ci_high: upper ends.
        n: maps that count.

    Raises:
        ValueError: lists of different lengths.
    """

    method: str
    name: str
    x: Sequence[float]
    value: Sequence[float | None]
    ci_low: Sequence[float | None]
    ci_high: Sequence[float | None]
    n: Sequence[int]

    def __post_init__(self) -> None:
        lengths = {each: len(getattr(self, each)) for each in ("x", "value", "ci_low", "ci_high", "n")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"curve {self.name!r} of {self.method!r} has lists of different lengths: {lengths}")


@dataclass(frozen=True)
class ExampleRow:
    """One explained image with the maps of every method, for the page; all tensors on the CPU.

    Attributes:
        rank: which place the image takes in the order of ``ranked_by``'s IoU (or other measure).
        ranked_by: the method whose values chose the image.
        image: grey values in [0, 1], float (H, W).
        target_name: what is explained, for people.
        prediction: the model's probability of the class, or its score.
        truth: the label of the class, or the true score.
        maps: method or control -> map, float (H, W), any scale; negative values are drawn in blue.
        iou: method or control -> the IoU of its map; may be empty.
        boxes: expert boxes, (N, 4) x1, y1, x2, y2 in pixels; None without.
        region: the expert region, bool (H, W), filled; None without.
        zones: Brixia zones, bool (6, H, W); None without.
        scores: scores 0 to 3 of the zones; needed where there are zones.
        measure: what ``iou`` holds and the rank is by, for people.

    Raises:
        ValueError: an unknown rank, a shape that is not the image's, or zones without scores.
    """

    rank: Literal["best", "median", "worst"]
    ranked_by: str
    image: Tensor
    target_name: str
    prediction: float
    truth: float
    maps: Mapping[str, Tensor]
    iou: Mapping[str, float | None] = field(default_factory=dict)
    boxes: Tensor | None = None
    region: Tensor | None = None
    zones: Tensor | None = None
    scores: Sequence[float] | None = None
    measure: str = "IoU"

    def __post_init__(self) -> None:
        if self.rank not in ("best", "median", "worst"):
            raise ValueError(f"rank={self.rank!r} is unknown; choose best, median or worst")
        size = tuple(self.image.shape)
        drawn = {**self.maps, **{k: v for k, v in (("region", self.region),) if v is not None}}
        if self.zones is not None:
            if self.scores is None or len(self.scores) != len(self.zones):
                raise ValueError(f"scores={self.scores!r} do not match {len(self.zones)} zones: give one score a zone")
            drawn |= {f"zone {k}": zone for k, zone in enumerate(self.zones)}
        for name, each in drawn.items():
            if tuple(each.shape) != size:
                raise ValueError(f"{name!r} is {tuple(each.shape)}, but the image is {size}: resize it to the image")
