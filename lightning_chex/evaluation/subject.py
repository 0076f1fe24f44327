"""Subject of an evaluation: the model, and the images it is evaluated on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from lightning_chex.data.contract import DataError, Samples, XrayDataModule
from lightning_chex.data.contract_checks import Checked, check_sample, first_of
from lightning_chex.maps.feature_statistics import Saved, batches_of

Weights = Mapping[str, Tensor]
"""As ``network.state_dict()`` names them."""


@dataclass(frozen=True)
class Shuffled:
    """A network that was trained on permuted labels.

    Attributes:
        weights: of all its layers.
        checkpoint: plain values that say which weights these are.
    """

    weights: Weights
    checkpoint: Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """The model to evaluate.

    Attributes:
        network: raw outputs (B, K) or, for a score, (B, 1); on its device, with its trained weights.
        class_names: of the K outputs; empty for a score.
        layer: where IBA has its bottleneck.
        saved: feature statistics that came with the weights.
        checkpoint: plain values that say which weights these are.
        device: where it is.
        move: brings a batch there.
        precision: makes the context the network runs in.
        precision_name: what that context is called.
        network_name: what the network is called in its LightningModule.
        build: builds the network anew, with initial weights; None if that is not possible.
        shuffled: the same network trained on permuted labels, or None.
        trained_size: side in pixels of the images it was trained on, None if unknown.
    """

    network: nn.Module
    class_names: Sequence[str]
    layer: str
    saved: Sequence[Saved]
    checkpoint: Mapping[str, Any]
    device: torch.device
    move: Callable[[dict[str, Any]], dict[str, Any]]
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    precision_name: str = "32-true"
    network_name: str = "model"
    build: Callable[[], nn.Module] | None = None
    shuffled: Shuffled | None = None
    trained_size: int | None = None


class Images:
    """The images of one half of an evaluation, in the order in which they are explained.

    Args:
        data: whose.
        dataset: the samples.
        subject: whose device they go to.
        limit: how many at most; None for all.
    """

    def __init__(self, data: XrayDataModule, dataset: Samples, subject: Subject, limit: int | None = None) -> None:
        self.data = data
        self.dataset = Checked(data, dataset, "images to explain")
        self.subject = subject
        self.count = len(dataset) if limit is None else min(limit, len(dataset))

    def batches(self, batch_size: int | None = None) -> Iterator[dict[str, Any]]:
        """Batches on the device."""
        chosen = range(self.count)
        for batch in batches_of(self.data, self.dataset, chosen, batch_size) if chosen else ():
            yield self.subject.move(batch)

    def first(self) -> dict[str, Any]:
        """The first sample that can be read.

        Raises:
            DataError: there is none.
            MisconfigurationException: it lacks what is needed to explain it.
        """
        sample = first_of(Subset(self.dataset, range(self.count)))
        if sample is None:
            raise DataError(
                "there is no image to explain: evaluate takes the test images, and of a data set with boxes those that "
                "have some"
            )
        check_sample(sample, ("image", "label", "image_id"), "evaluate")
        return sample


def tuning_half(data: XrayDataModule, subject: Subject) -> tuple[Images | None, str]:
    """The images to tune on; None, and the reason, where a copy holds test images alone."""
    try:
        dataset = data.explained_dataset("validate")
    except DataError as error:  # a copy that holds test images alone can be evaluated all the same
        return None, f"there are no tuning images: {error}"
    return (Images(data, dataset, subject), "") if dataset else (None, "there are no tuning images")
