"""Settings of an evaluation; its results record all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import get_args

from lightning_chex.maps import Regions


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation.

    Args:
        regions: maps are compared with expert ``boxes`` of the class; the exact ``masks`` of the phantom's findings; or
            lung ``zones`` (of the detector's scores, or for a severity those scored above 0). ``auto`` takes zones for
            Brixia scores, boxes otherwise.
        top_fraction: share of a map's pixels that the rule of that name marks; by default the mean share of the image
            that the tuning regions cover.
        tuning_images: most images of the tuning half whose maps the class thresholds are tuned on; 0 does without. With
            a limit, an eighth of it at the most.
        statistics_images: most training images the feature statistics rest on.
        perturbation_images: most images that insertion, deletion, ROAD and Sensitivity-N are measured on, the first
            ones; -1 for all. With a limit, those that hold a sixth of it in targets.
        randomization_images: most images of the model-parameter randomisation; 0 does without. With a limit,
            those that hold a sixteenth of it in targets.
        min_probability: perturbation measures only where the model gives the explained class at least this probability;
            the paper's authors took 0.6.
        step: pixels exchanged per step of insertion and deletion; by default a 32nd of them, the paper's authors took
            25.
        blur_kernel: taps of the blurred baseline, odd.
        blur_sigma: its width in pixels.
        sensitivity_sizes: how many numbers of masked pixels, from 1 to all but one on a logarithmic axis.
        sensitivity_masks: random masks per number; the paper's authors took 30 for classes, 100 for regression.
        chunk: altered images in one forward pass; by default 16 on a CPU, where more are slower, 64 elsewhere.
        resamples: of the bootstrap by patient.
        seed: of masks, noise, random maps, re-initialised weights, the statistics' images and the bootstrap.
    """

    regions: Regions = "auto"
    top_fraction: float | None = None
    tuning_images: int = 100
    statistics_images: int = 500
    perturbation_images: int = 64
    randomization_images: int = 8
    min_probability: float = 0.0
    step: int | None = None
    blur_kernel: int = 19
    blur_sigma: float = 10.0
    sensitivity_sizes: int = 8
    sensitivity_masks: int = 30
    chunk: int | None = None
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        # at construction, before a model is loaded or a folder made
        if self.regions not in get_args(Regions):
            raise ValueError(f"regions={self.regions!r} is unknown; choose {', '.join(get_args(Regions))}")
        if self.top_fraction is not None and not 0 < self.top_fraction <= 1:
            raise ValueError(f"top_fraction={self.top_fraction!r} must lie in (0, 1]")
        if not 0 <= self.min_probability <= 1:
            raise ValueError(f"min_probability={self.min_probability!r} must lie in [0, 1]")
        least = {
            "tuning_images": 0,
            "statistics_images": 2,
            "perturbation_images": -1,
            "randomization_images": 0,
            "sensitivity_sizes": 1,
            "sensitivity_masks": 3,
            "blur_kernel": 1,
            "resamples": 1,
            "seed": 0,
        }
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least {value}")
        if self.step is not None and self.step < 1:
            raise ValueError(f"step={self.step!r} must be at least 1 pixel")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk={self.chunk!r} must be at least 1")
        # "not >" also refuses NaN
        if self.blur_kernel % 2 == 0 or not self.blur_sigma > 0:
            raise ValueError(f"blur_kernel={self.blur_kernel!r} must be odd, blur_sigma={self.blur_sigma!r} above 0")

    def perturbed(self, limit: int | None) -> "ImageBudget":
        """Budget of the perturbation measures.

        Args:
            limit: on the number of images, or None.
        """
        images = inf if self.perturbation_images == -1 else self.perturbation_images
        return ImageBudget(images, _targets_within(limit, 6))

    def randomized(self, limit: int | None) -> "ImageBudget":
        """Budget of the randomisation.

        Args:
            limit: on the number of images, or None.
        """
        return ImageBudget(self.randomization_images, _targets_within(limit, 16))

    def tuned(self, limit: int | None) -> int:
        """Number of images of the tuning half that thresholds are tuned on.

        Args:
            limit: on the number of images, or None.
        """
        return self.tuning_images if limit is None else min(self.tuning_images, max(1, limit // 8))


def _targets_within(limit: int | None, divisor: int) -> float:
    """Number of targets of an expensive measure: the fraction of a limit, at least 1; infinite without one."""
    return inf if limit is None else max(1, limit // divisor)


@dataclass
class ImageBudget:
    """Number of images, from the first, that an expensive measure is taken on; each with all of its targets.

    Attributes:
        images: number of further images.
        targets: number of further targets, after which no further image is taken.
    """

    images: float
    targets: float

    def take(self, rows: Sequence[int]) -> set[int]:
        """Take images of a batch out of the budget.

        Args:
            rows: the image of each target, in order.

        Returns:
            Those taken; the budget is smaller by them.

        Example:
            >>> budget = ImageBudget(images=3, targets=3)
            >>> budget.take([0, 0, 1, 1, 2]), budget.take([0])
            ({0, 1}, set())
        """
        taken = set()
        # in order of their first target, so that the budget goes to the first images
        for row in dict.fromkeys(rows):
            if self.images < 1 or self.targets < 1:
                break
            taken.add(row)
            self.images -= 1
            self.targets -= rows.count(row)
        return taken
