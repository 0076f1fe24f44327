"""What a data set must offer, and what it may."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, fields
from typing import Any, Protocol

from torch import Tensor


class Samples(Sized, Protocol):
    """Samples by their number, each a dict, see ``data/sample.py``."""

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Read sample ``index``."""


class LabelledDataset(Samples, Protocol):
    """A data set must offer samples, and their labels without reading an image."""

    labels: Tensor
    """float32 (N, K) for K classes or K scores, or (N,) for severity scores; row i belongs to sample i."""


@dataclass(frozen=True)
class Described:
    """What a data set may offer besides, attributes of these names; None where it does not.

    Attributes:
        image_ids: the names of all images, so that finished ones need not be read to be passed over.
        patient_ids: who each image shows.
        paths: the file of each image, whose size is then told beside its maps.
        zones: Brixia scores, float32 (N, 6).
        all_box_labels: class index of every expert box on these images, int64 (M,).
    """

    image_ids: Sequence[str] | None
    patient_ids: Sequence[str] | None
    paths: Sequence[str] | None
    zones: Tensor | None
    all_box_labels: Tensor | None


def described(dataset: object) -> Described:
    """Ask a data set what it offers besides samples and labels."""
    return Described(**{field.name: getattr(dataset, field.name, None) for field in fields(Described)})
