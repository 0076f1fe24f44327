"""What a data set, a data module and a model must offer, and what they may: all the rest of the package relies on.

A child of ``ChestXrayDataModule`` offers whatever is asked of a data module as soon as it has ``class_names`` (or
``score_names``) and ``build``. Any other LightningDataModule may offer any part of `XrayDataModule`; ``adapted`` (in
``data/adapter.py``) fills in the rest, once. A command that cannot do without what is missing says so before it begins.
"""

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

if TYPE_CHECKING:
    from lightning_chex.data.predicted import Predicted

PAGE = "lightning_chex/data/contract.py"

Split = Literal["train", "val", "test"]

Stage = Literal["validate", "test"]


class Samples(Sized, Protocol):
    """Samples by their number: dicts with ``image``, ``label``, ``image_id``, ``patient_id`` (``data/sample.py``).

    They may have ``boxes`` with ``box_labels``, ``zones``, ``lung_mask`` and ``finding_masks``, all samples the same.
    None instead of a sample is an image that could not be read and is left out.
    """

    def __getitem__(self, index: int, /) -> Any:
        """Read sample ``index``."""


class LabelledDataset(Samples, Protocol):
    """A data set must offer samples, and their labels without reading an image."""

    labels: Tensor
    """float32 (N, K) for K classes or K scores, or (N,) for severity scores; row i belongs to sample i."""


@dataclass(frozen=True)
class Described:
    """What a data set may offer besides, as attributes of these names; None where it does not.

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


class XrayDataModule(Protocol):
    """What a LightningDataModule may offer beside its loaders, whose batches are dicts as ``collate`` makes them.

    A data set of classes must offer ``class_names``; evaluate needs ``explained_dataset``, inspect ``parts``.
    """

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the K classes in the order of ``label``; empty for scores, None where the model alone tells."""

    @property
    def score_names(self) -> Sequence[str] | None:
        """Names of the scores; None where there is one, or the model alone tells."""

    @property
    def size(self) -> int | None:
        """Side of the images in pixels."""

    @property
    def root(self) -> str | None:
        """The folder the images come from, which tells two data sets with the same names apart."""

    @property
    def batch_size(self) -> int:
        """Images per batch."""

    @property
    def num_workers(self) -> int:
        """Processes that read images."""

    @property
    def collate(self) -> Callable[[list[Any]], Any]:
        """Joins samples to a batch."""

    @property
    def shuffle_labels(self) -> bool:
        """Whether the training images have each other's labels."""

    @property
    def pos_weight(self) -> Tensor | None:
        """Negatives over positives of each class in the training images, float32 (K,)."""

    @property
    def unreadable_images(self) -> Sequence[str]:
        """Names of images that were left out because they cannot be read."""

    def explained_dataset(self, stage: Stage) -> Samples | None:
        """Images to explain, never augmented, the most telling first, with all that is known of them.

        Those of ``validate`` are explained at every validation, and tuned on; those of ``test`` are reported on.
        None: the callback explains the first that come by.
        """

    def parts(self) -> Mapping[str, LabelledDataset]:
        """All images by the part they belong to, never augmented: ``train``, ``val``, ``test`` and others."""

    def choose_predicted(self, part: str = "test", **options: Any) -> "Predicted | None":
        """Let ``predict`` see these images; None where it sees what ``predict_dataloader`` gives."""

    def dataset(self, split: Split) -> Samples | None:
        """The images of a split; None where the loaders alone know them."""

    def readable(self, dataset: Samples, name: str) -> Samples:
        """The same with None for samples that cannot be read, if such are to be skipped."""

    def look(self) -> None:
        """Read and check what is on disk, so that all of the above can be asked for; once."""

    def fingerprint(self) -> str:
        """Hash of all an evaluation rests on."""

    def overview(self, num_samples: int = 12) -> dict[str, Any]:
        """What is found on disk, see ``data/overview.py``."""

    def prepare(self, output_dir: str | Path, size: int | None = None, workers: int | None = None) -> Path:
        """Resize all image files once, into a folder that is returned."""


class XrayModel(Protocol):
    """What a LightningModule must offer, beside the network that is explained.

    That is an attribute of any name, ``model`` unless the callback's ``network`` says otherwise, which gives raw
    outputs (B, K) or, for a score, (B, 1). ``explain`` and ``predict`` need a ``predict_step`` that returns a dict with
    ``image_id`` and ``prediction``: probabilities (B, K) or scores (B,).
    """

    class_names: Sequence[str]
    """Of the K outputs; empty for a score. Without it the names of the data module hold."""

    score_names: Sequence[str]
    """Of the scores; it may be missing where there are classes, or a single severity."""


@dataclass(frozen=True)
class Outputs:
    """What the outputs of a model stand for.

    Attributes:
        class_names: of the K classes; empty for scores.
        score_names: of the scores; of no meaning with classes.
    """

    class_names: list[str]
    score_names: list[str]


def described(dataset: object) -> Described:
    """Ask a data set what it offers besides samples and labels."""
    return Described(**{field.name: getattr(dataset, field.name, None) for field in fields(Described)})


def outputs_of(model: object, data: XrayDataModule | None = None) -> Outputs:
    """Ask a model what its outputs stand for; one that has no ``class_names`` has those of its data."""
    class_names = getattr(model, "class_names", None)
    if class_names is None and data is not None:
        class_names = data.class_names
    return Outputs(list(class_names or ()), list(getattr(model, "score_names", None) or ("severity",)))


def lacks(name: str, member: str, purpose: str) -> MisconfigurationException:
    """Make the error of a member that a class of this name lacks."""
    return MisconfigurationException(f"{name} has no {member}, which {purpose} needs: {PAGE} says what it is")


def check_labels(dataset: LabelledDataset, name: str) -> None:
    """Raise a MisconfigurationException unless a data set offers the labels of all its samples."""
    labels = getattr(dataset, "labels", None)
    if labels is None:
        raise lacks(type(dataset).__name__, "labels", f"the {name}")
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != len(dataset):
        found = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"type {type(labels).__name__}"
        raise MisconfigurationException(
            f"labels of {type(dataset).__name__} have {found}, but there are {len(dataset)} samples in the {name}: "
            f"give a tensor (N, K) or (N,); see {PAGE}"
        )


def check_sample(sample: Mapping[str, Any], keys: Sequence[str], purpose: str) -> None:
    """Raise a MisconfigurationException unless a sample has these keys, and labels with its boxes."""
    needed = [*keys, *(["box_labels"] if "boxes" in sample else [])]
    for key in needed:
        if key not in sample:
            raise MisconfigurationException(
                f"a sample has no {key!r}, which {purpose} needs; it has {', '.join(map(repr, sample))}: see {PAGE}"
            )


def first_of(dataset: Samples) -> dict[str, Any] | None:
    """Read the first sample that can be read; None where there is none."""
    samples = (dataset[i] for i in range(len(dataset)))
    return next((sample for sample in samples if sample is not None), None)
