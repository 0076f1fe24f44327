"""Real X-rays of distinct patients, what a network says of them, and the problems posed to the bottleneck."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_chex.attribution import IBA, FeatureStatistics
from lightning_chex.attribution.bottleneck.mask import Bottleneck
from lightning_chex.attribution.bottleneck.optimization import Problem
from lightning_chex.attribution.network.partition import Partition, partition
from lightning_chex.data import NIHDataModule, SyntheticDataModule


@dataclass(frozen=True)
class Images:
    """One image a patient.

    Attributes:
        images: (N, 3, H, W), as the network takes them.
        patients: N of them.
    """

    images: Tensor
    patients: list[str]

    def part(self, start: int, stop: int) -> "Images":
        """Those from ``start`` to ``stop``."""
        return Images(self.images[start:stop], self.patients[start:stop])


def drawn(root: Path | None, size: int, learnt: int, reported: int, seed: int) -> tuple[Images, Images]:
    """Draw images to learn from and to choose with (official training patients), and those reported (official test).

    Args:
        root: of the NIH data; None for the phantom, whose images serve to try the benchmark.
        size: pixels a side.
        learnt: patients of the first.
        reported: patients of the second.
        seed: of the draw.

    Raises:
        ValueError: there are fewer patients.
    """
    data: NIHDataModule | SyntheticDataModule
    if root is None:
        data = SyntheticDataModule(
            size=size, num_train=4 * learnt, num_val=8, num_test=4 * reported, augment=False, seed=seed, batch_size=2
        )
    else:
        data = NIHDataModule(root=str(root), size=size, augment=False)
    data.setup("fit")
    data.setup("test")
    found = [_one_a_patient(data.dataset(split), n, seed) for split, n in (("train", learnt), ("test", reported))]
    shared = set(found[0].patients) & set(found[1].patients)
    if shared:
        raise ValueError(f"{len(shared)} patients are both learnt from and reported on, such as {min(shared)}")
    return found[0], found[1]


def _one_a_patient(dataset: torch.utils.data.Dataset[dict], number: int, seed: int) -> Images:
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()  # type: ignore[arg-type]
    chosen: dict[str, Tensor] = {}
    for index in order:
        if len(chosen) == number:
            break
        sample = dataset[index]
        chosen.setdefault(str(sample["patient_id"]), sample["image"])
    if len(chosen) < number:
        raise ValueError(f"{number} patients are wanted, the images are those of {len(chosen)}: ask for fewer")
    return Images(torch.stack(list(chosen.values())), list(chosen))


@dataclass(frozen=True)
class Setting:
    """A network cut at a layer, with the default bottleneck for it.

    Attributes:
        network: in evaluation mode, frozen.
        part: the network cut at ``iba.layer``.
        iba: the method whose maps are to be had for less, with its statistics.
        example: shape of an image, (3, H, W).
    """

    network: nn.Module
    part: Partition
    iba: IBA
    example: torch.Size

    @classmethod
    def of(cls, network: nn.Module, layer: str, seen: Tensor) -> "Setting":
        """Learn the statistics of the layer from images (N, 3, H, W)."""
        network.requires_grad_(False)
        iba = IBA(layer).fit(network, seen.split(20))
        return cls(network, partition(network, layer, seen), iba, seen.shape[1:])

    @property
    def statistics(self) -> FeatureStatistics:
        """Of the layer's features."""
        return self.iba.statistics

    @property
    def weight(self) -> float:
        """Weight of a nat of one neuron in the sum that is minimised: beta over the number of neurons."""
        return self.iba.beta / self.statistics.mean.numel()

    @torch.no_grad()
    def output(self, images: Tensor) -> Tensor:
        """The network's own forward pass, as it is run for predictions: logits (N, K)."""
        return self.network(images.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def pose(self, images: Tensor, target: Tensor | None = None) -> Problem:
        """Run the network once on images (N, 3, H, W); the target is its strongest class where none is given, (N,)."""
        features, carried = self.part.below(images.contiguous(memory_format=torch.channels_last))
        reference = self.part.above(features.clone(), carried)
        target = reference.argmax(1) if target is None else target
        return Problem(self.part, features, carried, target, reference, self.statistics, self.iba.noise_share)

    def posed(self, images: Tensor, batch: int) -> Iterator[Problem]:
        """`pose`, some images at a time."""
        yield from (self.pose(own) for own in images.split(batch))

    def bottleneck(self, problem: Problem, alpha: Tensor | float, lr: float = 1.0) -> Bottleneck:
        """A bottleneck whose alpha is a number, or (1 or N, C, h, w)."""
        number = alpha if isinstance(alpha, float) else 0.0
        settings = self.iba.settings
        made = Bottleneck(problem.features, self.statistics, settings.blur_sigma, number, lr, settings.adam_betas)
        if isinstance(alpha, Tensor):
            made.alpha.copy_(alpha.expand_as(made.alpha))
        return made


def class_means(values: Tensor, classes: Tensor, number: int, fewest: int = 5) -> Tensor:
    """Mean of values (N, ...) over the rows of each class, (number, ...); the mean of all for a class of few rows."""
    means: Sequence[Tensor] = [
        values[classes == own].mean(0) if int((classes == own).sum()) >= fewest else values.mean(0)
        for own in range(number)
    ]
    return torch.stack(list(means))
