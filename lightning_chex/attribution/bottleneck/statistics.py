"""Mean and deviation of a layer's features over many images, accumulated batch by batch and merged exactly."""

import warnings
from os import PathLike
from typing import Literal, Self

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lightning_chex.attribution.network.layers import NotFiniteError
from lightning_chex.files import write_whole

ACTIVE_FRACTION = 0.01
"""A neuron that is non-zero in this share of the images or fewer carries no information (the authors' setting)."""

FEW_IMAGES = 50
"""Below this many images a deviation is off by 10 % or more (1 / sqrt(2 n)), and a warning says so."""

Granularity = Literal["neuron", "channel"]


class FeatureStatistics:
    """Mean, standard deviation and activity of features (C, h, w).

    Accumulated in float64 around the running mean (Chan, Golub and LeVeque's pairwise update), so that neither a large
    offset nor the order or size of the batches shows in the result. Two halves merge to what the whole gives.

    Args:
        per: ``neuron`` for one mean and deviation at each place of each channel; ``channel`` for one per channel, over
            all places, which needs fewer images.

    Example:
        >>> features = torch.randn(32, 4, 7, 7)
        >>> statistics = FeatureStatistics()
        >>> for batch in features.split(5):
        ...     statistics.update(batch)
        >>> torch.allclose(statistics.std, features.std(0))
        True
    """

    def __init__(self, per: Granularity = "neuron") -> None:
        if per not in ("neuron", "channel"):
            raise ValueError(f"per={per!r} is unknown; choose neuron or channel")
        self.per: Granularity = per
        self.count = 0
        self.shape = torch.Size()
        self._mean = torch.zeros(0)
        self._sum_of_squares = torch.zeros(0)
        self._nonzero = torch.zeros(0)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Add a batch of features (B, C, h, w); an empty batch changes nothing.

        Raises:
            NotFiniteError: the features are not finite.
            ValueError: they are not of the shape seen before.
        """
        if features.shape[0] == 0:
            return
        self._check_shape(features.shape[1:])
        with torch.inference_mode(False):  # what is kept must outlive the inference mode of a validation loop
            wide = torch.float32 if features.device.type == "mps" else torch.float64  # MPS has no float64
            values = features.to(torch.promote_types(features.dtype, torch.float32))
            over = (0,) if self.per == "neuron" else (0, 2, 3)
            samples = values[:, :1].numel() if self.per == "channel" else len(values)
            mean = values.sum(over, dtype=wide, keepdim=True) / samples
            if not torch.isfinite(mean).all():
                raise NotFiniteError(
                    "the model's features are NaN or infinite: its training has diverged (train with a lower learning "
                    "rate), or an image is invalid (inspect the data)"
                )
            centred = values - mean.to(values.dtype)
            # the rounding of the mean to the features' precision leaves a remainder, taken out again
            remainder = centred.sum(over, dtype=wide, keepdim=True)
            squares = centred.square().sum(over, dtype=wide, keepdim=True) - remainder.square() / samples
            nonzero = (values != 0).sum(over, keepdim=True).to(wide)
            self._merge(len(values), features.shape[1:], mean[0], squares[0].clamp_(min=0), nonzero[0])

    def merge(self, other: "FeatureStatistics") -> Self:
        """Add what other statistics of the same layer have seen; exact, and in any order."""
        if other.count:
            if other.per != self.per:
                raise ValueError(f"statistics per {other.per} do not merge with statistics per {self.per}")
            self._check_shape(other.shape)
            self._merge(other.count, other.shape, other._mean, other._sum_of_squares, other._nonzero)
        return self

    def _check_shape(self, shape: torch.Size) -> None:
        if self.count and shape != self.shape:
            raise ValueError(
                f"features of shape {tuple(shape)} do not fit statistics of shape {tuple(self.shape)}: "
                "all images must have one size"
            )

    def _merge(self, count: int, shape: torch.Size, mean: Tensor, squares: Tensor, nonzero: Tensor) -> None:
        if self.count == 0:
            self.shape = shape
            self.count = count
            self._mean = mean
            self._sum_of_squares = squares
            self._nonzero = nonzero
            return
        total = self.count + count
        mean, squares, nonzero = (t.to(self._mean.device) for t in (mean, squares, nonzero))
        delta = mean - self._mean
        between = delta.square() * (self.count * count / total) * self._samples_per_image
        self._sum_of_squares = self._sum_of_squares + squares + between
        self._mean = self._mean + delta * (count / total)
        self._nonzero = self._nonzero + nonzero
        self.count = total

    @property
    def _samples_per_image(self) -> int:
        return 1 if self.per == "neuron" else self.shape[-1] * self.shape[-2]

    @property
    def mean(self) -> Tensor:
        """Mean of each neuron, float32 (C, h, w), or of each channel, (C, 1, 1)."""
        return self._mean.float()

    @property
    def std(self) -> Tensor:
        """Standard deviation (divisor n - 1), float32 >= 0, shaped like `mean`.

        Raises:
            ValueError: fewer than two images were seen.
        """
        if self.count < 2:
            raise ValueError(f"a standard deviation needs at least 2 images, not {self.count}")
        return (self._sum_of_squares / (self.count * self._samples_per_image - 1)).sqrt().float()

    @property
    def active(self) -> Tensor:
        """Mask of the neurons (channels) that can carry information, bool, shaped like `mean`.

        Not those that never vary, nor those that are non-zero in 1 % of the images (of all places) or fewer.
        """
        return (self._nonzero > ACTIVE_FRACTION * self.count * self._samples_per_image) & (self._sum_of_squares > 0)

    def check_fitted(self) -> None:
        """Raise a ValueError if the statistics rest on fewer than two images; warn if on fewer than ``FEW_IMAGES``."""
        if self.count < 2:
            raise ValueError(f"the statistics need at least 2 images, the batches held {self.count}")
        if self.count < FEW_IMAGES:
            warnings.warn(
                f"the feature statistics rest on {self.count} images only; {FEW_IMAGES} or more are advised",
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything as plain tensors on the CPU."""
        return {
            "count": torch.tensor(self.count),
            "shape": torch.tensor(self.shape, dtype=torch.int64),
            "mean": self._mean.cpu(),
            "sum_of_squares": self._sum_of_squares.cpu(),
            "nonzero": self._nonzero.cpu(),
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> Self:
        """Build statistics from `state_dict`.

        Raises:
            ValueError: it is none, or holds values that no images give.
        """
        fault = _fault_of(state)
        if fault:
            raise ValueError(f"these are no feature statistics ({fault}): collect them anew")
        shape = torch.Size(state["shape"].tolist())
        statistics = cls("neuron" if state["mean"].shape == shape or not shape else "channel")
        statistics.count = int(state["count"])
        statistics.shape = shape
        # what was kept in float32 grows on in the precision it grew in
        mean = state["mean"]
        wide = mean.dtype if mean.device.type == "mps" else torch.float64
        statistics._mean = mean.to(wide)
        statistics._sum_of_squares = state["sum_of_squares"].to(wide)
        statistics._nonzero = state["nonzero"].to(wide)
        return statistics

    def save(self, path: str | PathLike[str]) -> None:
        """Write the statistics to a safetensors file."""
        write_whole(path, save({name: value.contiguous() for name, value in self.state_dict().items()}), sync=True)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read statistics written by `save`.

        Raises:
            ValueError: the file cannot be read, or holds something else.
        """
        try:
            return cls.from_state_dict(load_file(path))
        except (OSError, SafetensorError, ValueError) as error:
            raise ValueError(f"{str(path)!r} cannot be read as feature statistics ({error})") from error

    def synchronize(self) -> None:
        """Merge the statistics of all processes into each of them; a process may have seen no image at all."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return
        states: list[dict[str, Tensor]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(states, self.state_dict())
        merged = type(self)(self.per)
        for state in states:
            merged.merge(self.from_state_dict(state))
        self.__dict__.update(merged.__dict__)


def _fault_of(state: dict[str, Tensor]) -> str | None:
    """Return what is wrong with a state, or None."""
    names = {"count", "shape", "mean", "sum_of_squares", "nonzero"}
    if not names <= state.keys() or not all(isinstance(state[name], Tensor) for name in names):
        return f"they need the tensors {', '.join(sorted(names))}"
    count = state["count"]
    shape = state["shape"]
    values = [state[name] for name in ("mean", "sum_of_squares", "nonzero")]
    if count.numel() != 1 or count.is_floating_point() or int(count) < 0 or shape.ndim != 1 or len(shape) not in (0, 3):
        return "count is a number of images, shape the three sides of the features"
    if int(count) == 0:
        return None
    whole = tuple(shape.tolist())
    if {tuple(value.shape) for value in values} not in ({whole}, {(*whole[:1], 1, 1)}):
        return f"shape is {whole}, the values are {', '.join(str(tuple(value.shape)) for value in values)}"
    if not all(value.isfinite().all() for value in values) or any((value < 0).any() for value in values[1:]):
        return "they hold NaN, infinity or a sum of squares below 0"
    return None
