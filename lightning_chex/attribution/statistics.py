"""Mean and deviation of a layer's features over many images, accumulated batch by batch and merged exactly."""

from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

ACTIVE_FRACTION = 0.01
"""A neuron that is non-zero in this share of the images or fewer carries no information (the authors' setting)."""


class FeatureStatistics:
    """Per-neuron mean, standard deviation and activity of features (C, h, w).

    Accumulated in float64 around the running mean (Chan, Golub and LeVeque's pairwise update), so that neither a large
    offset nor the order or size of the batches shows in the result. Two halves merge to what the whole gives.

    Example:
        >>> features = torch.randn(32, 4, 7, 7)
        >>> statistics = FeatureStatistics()
        >>> for batch in features.split(5):
        ...     statistics.update(batch)
        >>> torch.allclose(statistics.std, features.std(0))
        True
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(0)
        self._sum_of_squares = torch.zeros(0)
        self._nonzero = torch.zeros(0)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Add a batch of features (B, C, h, w); an empty batch changes nothing.

        Raises:
            ValueError: the features are not finite, or not of the shape seen before.
        """
        if features.shape[0] == 0:
            return
        with torch.inference_mode(False):  # what is kept must outlive the inference mode of a validation loop
            wide = torch.float32 if features.device.type == "mps" else torch.float64  # MPS has no float64
            values = features.to(torch.promote_types(features.dtype, torch.float32))
            mean = values.sum(0, dtype=wide) / len(values)
            if not torch.isfinite(mean).all():
                raise ValueError("the features contain NaN or infinity: check the images and the model's weights")
            centred = values - mean.to(values.dtype)
            # the rounding of the mean to the features' precision leaves a remainder, taken out again
            remainder = centred.sum(0, dtype=wide)
            sum_of_squares = centred.square().sum(0, dtype=wide) - remainder.square() / len(values)
            nonzero = (values != 0).sum(0).to(wide)
            self._merge(len(values), mean, sum_of_squares.clamp_(min=0), nonzero)

    def merge(self, other: "FeatureStatistics") -> Self:
        """Add what other statistics of the same layer have seen; exact, and in any order."""
        if other.count:
            self._merge(other.count, other._mean, other._sum_of_squares, other._nonzero)
        return self

    def _merge(self, count: int, mean: Tensor, sum_of_squares: Tensor, nonzero: Tensor) -> None:
        if self.count == 0:
            self.count, self._mean, self._sum_of_squares, self._nonzero = count, mean, sum_of_squares, nonzero
            return
        if mean.shape != self._mean.shape:
            raise ValueError(
                f"features of shape {tuple(mean.shape)} do not fit statistics of shape {tuple(self._mean.shape)}: "
                "all images must have one size"
            )
        total = self.count + count
        mean, sum_of_squares, nonzero = (t.to(self._mean.device) for t in (mean, sum_of_squares, nonzero))
        delta = mean - self._mean
        self._sum_of_squares = self._sum_of_squares + sum_of_squares + delta.square() * (self.count * count / total)
        self._mean = self._mean + delta * (count / total)
        self._nonzero = self._nonzero + nonzero
        self.count = total

    @property
    def shape(self) -> torch.Size:
        """Shape (C, h, w) of the features."""
        return self._mean.shape

    @property
    def mean(self) -> Tensor:
        """Mean of each neuron, float32 (C, h, w)."""
        return self._mean.float()

    @property
    def std(self) -> Tensor:
        """Standard deviation of each neuron (divisor n - 1), float32 (C, h, w), >= 0."""
        if self.count < 2:
            raise ValueError(f"a standard deviation needs at least 2 images, not {self.count}")
        return (self._sum_of_squares / (self.count - 1)).sqrt().float()

    @property
    def active(self) -> Tensor:
        """Which neurons can carry information, bool (C, h, w).

        Not those that never vary, nor those that are non-zero in 1 % of the images or fewer.
        """
        return (self._nonzero > ACTIVE_FRACTION * self.count) & (self._sum_of_squares > 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything as plain tensors on the CPU."""
        return {
            "count": torch.tensor(self.count),
            "mean": self._mean.cpu(),
            "sum_of_squares": self._sum_of_squares.cpu(),
            "nonzero": self._nonzero.cpu(),
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> Self:
        """Build statistics from `state_dict`."""
        statistics = cls()
        statistics.count = int(state["count"])
        statistics._mean = state["mean"]
        statistics._sum_of_squares = state["sum_of_squares"]
        statistics._nonzero = state["nonzero"]
        return statistics

    def synchronize(self) -> None:
        """Merge the statistics of all processes into each of them; a process may have seen no image at all."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return
        states: list[dict[str, Tensor]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(states, self.state_dict())
        merged = type(self)()
        for state in states:
            merged.merge(self.from_state_dict(state))
        self.__dict__.update(merged.__dict__)
