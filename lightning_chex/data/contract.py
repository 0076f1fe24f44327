"""Protocols: required and optional members of data sets, data modules and models.

A child of ``ChestXrayDataModule`` offers all of it once it has ``class_names`` (or ``score_names``) and ``build``. Any
other LightningDataModule may offer any part of `XrayDataModule`; ``adapted`` (in ``data/adapter.py``) adds the
defaults. A command that needs a missing member raises an error before it begins.
"""

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import default_collate

PAGE = "lightning_chex/data/contract.py"

Split = Literal["train", "val", "test"]

Stage = Literal["validate", "test"]


class DataError(ValueError):
    """A file or table on disk is not as it should be; the message names it, what was found, and the way out."""


class Samples(Sized, Protocol):
    """Samples by their number: dicts with ``image``, ``label``, ``image_id``, ``patient_id`` (``data/sample.py``).

    They may have ``boxes`` with ``box_labels``, ``zones``, ``lung_mask`` and ``finding_masks``, all samples the same.
    None instead of a sample is an image that could not be read and is left out, before ``collate`` sees it; what a
    loader of one's own does with it is up to that. Numbers as ids are taken as text, integers and bools as labels as
    float32; without ``patient_id`` each image is its own patient. What is not as it should be, a box without extent or
    outside its image too, is an error that names the sample, see ``data/contract_checks.py``.
    """

    def __getitem__(self, index: int, /) -> Any:
        """Read sample ``index``."""


class LabelledDataset(Samples, Protocol):
    """A data set must offer samples, and their labels without reading an image."""

    labels: Tensor
    """float32 (N, K) for K classes or K scores, or (N,) for severity scores; row i belongs to sample i.

    Where the data set has ``unknown_labels = True``, NaN stands for a class that is not known of an image: our loss and
    measures pass over it, and a model of one's own has to.
    """


@dataclass(frozen=True)
class Described:
    """Optional attributes of a data set; None where it lacks them.

    Attributes:
        image_ids: names of all images, so that finished ones are skipped without being read.
        patient_ids: the patient of each image.
        paths: the file of each image, whose size is then recorded with its maps.
        zones: Brixia scores, float32 (N, 6).
        all_box_labels: class index of every expert box on these images, int64 (M,).
    """

    image_ids: Sequence[str] | None
    patient_ids: Sequence[str] | None
    paths: Sequence[str] | None
    zones: Tensor | None
    all_box_labels: Tensor | None


@dataclass(frozen=True)
class Predicted:
    """Images chosen for ``predict``.

    Attributes:
        images: those still to be done.
        count: of all chosen images, finished ones included.
        image_ids: of all of these, in order; empty where a data set does not list them.
        labelled: whether their labels are known.
    """

    images: Samples
    count: int
    image_ids: list[str]
    labelled: bool


class XrayDataModule:
    """Optional members of a LightningDataModule beside its loaders, whose batches are dicts as ``collate`` makes them.

    ``predict`` and ``explain`` have Lightning build ``predict_dataloader`` anew: in it write
    ``DataLoader(dataset, batch_size=...)``, with all but the data set by name.

    Every member has the default given here. A data set of classes must offer ``class_names``; evaluate needs
    ``explained_dataset``, inspect ``parts``.
    """

    class_names: Sequence[str] | None = None
    """Names of the K classes in the order of ``label``; empty for scores, None: those of the model."""

    score_names: Sequence[str] | None = None
    """Names of the scores; None where there is one, or for those of the model."""

    size: int | None = None
    """Side of the images in pixels, which are (3, size, size); None where it is not known."""

    root: str | None = None
    """Folder of the images, which distinguishes data sets whose images have the same names."""

    batch_size: int = 16
    num_workers: int = 0
    """Processes that read images."""

    collate: Callable[[list[Any]], Any] = staticmethod(default_collate)
    """Joins samples to a batch."""

    shuffle_labels: bool = False
    """Whether the labels are permuted among the training images."""

    unreadable_images: Sequence[str] = ()
    """Names of images that were left out because they cannot be read."""

    @property
    def pos_weight(self) -> Tensor | None:
        """Negatives over positives of each class in the training images, float32 (K,)."""
        return None

    def explained_dataset(self, stage: Stage) -> Samples | None:
        """Images to explain, never augmented, the most informative first, with all annotations.

        Those of ``validate`` are explained at every validation, and tuned on; those of ``test`` are reported on.
        None: the callback explains the first ones of the loader.
        """
        return None

    def parts(self) -> Mapping[str, LabelledDataset]:
        """All images by the part they belong to, never augmented: ``train``, ``val``, ``test`` and others."""
        return {}

    def choose_predicted(self, part: str = "test", **options: Any) -> Predicted | None:
        """Let ``predict`` see these images; None where it sees what ``predict_dataloader`` gives."""
        return None

    def dataset(self, split: Split) -> Samples | None:
        """The images of a split; None where only the loaders give them."""
        return None

    def readable(self, dataset: Samples, name: str) -> Samples:
        """The same with None for unreadable samples, if those are to be skipped."""
        return dataset

    def look(self) -> None:
        """Read and check what is on disk, once; all other members may rely on it."""

    def rater_disagreement(self) -> dict[str, float] | None:
        """Return measures of the disagreement of raters by name; None with a single rater."""
        return None

    def fingerprint(self) -> str:
        """Hash of all an evaluation depends on."""
        return "unknown"

    def overview(self, num_samples: int = 12) -> dict[str, Any]:
        """Return a summary of the data on disk, see ``data/overview.py``."""
        raise lacks(name_of(self), "parts", "inspect")

    def proposal(self) -> tuple[list[str], str]:
        """Say in words, one a line, what was recognised on disk, and write a configuration that names all of it."""
        raise lacks(name_of(self), "proposal", "inspect --write_config")

    def prepare(self, output_dir: str | Path, size: int | None = None, workers: int | None = None) -> Path:
        """Resize all image files once, into a folder that is returned."""
        raise lacks(name_of(self), "prepare", "prepare")


class XrayModel(Protocol):
    """Required members of a LightningModule, beside the network that is explained.

    That is the attribute named by the callback's ``network``, by default ``model``, which gives raw
    outputs (B, K) or, for a score, (B, 1). ``explain`` and ``predict`` need a ``predict_step`` that returns a dict with
    ``image_id`` and ``prediction``: probabilities (B, K) or scores (B,).
    """

    class_names: Sequence[str]
    """Of the K outputs; empty for a score. Without it the names of the data module hold; the callback infers classes
    where neither names any, see ``maps/model_outputs.py``."""

    score_names: Sequence[str]
    """Of the scores; it may be missing where there are classes, or a single severity."""


@dataclass(frozen=True)
class Outputs:
    """Meaning of a model's outputs.

    Attributes:
        class_names: of the K classes; empty for scores.
        score_names: of the scores; of no meaning with classes.
    """

    class_names: list[str]
    score_names: list[str]


def described(dataset: object) -> Described:
    """Return the optional attributes of a data set."""
    found = {field.name: getattr(dataset, field.name, None) for field in fields(Described)}
    return Described(**found | {key: names_of(found[key]) for key in ("image_ids", "patient_ids")})


def names_of(ids: Any) -> Any:
    """Ids as text, whether they are text or numbers, in a list or a tensor; None stays None."""
    listed = ids.tolist() if hasattr(ids, "tolist") else ids
    return listed if not listed or isinstance(listed[0], str) else [str(name) for name in listed]


def subgroups_of_batch(batch: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """Take the groups of each image from a batch, of torch's ``default_collate`` too; None where it has none."""
    found = batch.get("subgroups")
    if isinstance(found, Mapping):  # by attribute, as default_collate joins dicts
        return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    return found


def outputs_of(model: object, data: XrayDataModule | None = None) -> Outputs:
    """Return what the outputs of a model stand for; without ``class_names`` it has those of its data."""
    class_names = getattr(model, "class_names", None)
    if class_names is None and data is not None:
        class_names = data.class_names
    return Outputs(list(class_names or ()), list(getattr(model, "score_names", None) or ("severity",)))


def name_of(data: XrayDataModule) -> str:
    """Return the name of the class of a data module, adapted or not."""
    return type(getattr(data, "own", data)).__name__


def lacks(name: str, member: str, purpose: str) -> MisconfigurationException:
    """Make the error of a member that a class of this name lacks."""
    return MisconfigurationException(f"{name} has no {member}, which {purpose} needs: {PAGE} says what it is")


def check_labels(dataset: LabelledDataset, name: str, class_names: Sequence[str] = ()) -> None:
    """Raise a MisconfigurationException unless a data set offers known labels of all its samples and classes."""
    labels = getattr(dataset, "labels", None)
    if labels is None:
        raise lacks(type(dataset).__name__, "labels", f"the {name}")
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != len(dataset):
        found = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"type {type(labels).__name__}"
        raise MisconfigurationException(
            f"labels of {type(dataset).__name__} have {found}, but there are {len(dataset)} samples in the {name}: "
            f"give a tensor (N, K) or (N,); see {PAGE}"
        )
    numbers = labels.float()
    odd = ~numbers.isfinite() | ((numbers < 0) | (numbers > 1) if class_names else False)
    if class_names and getattr(dataset, "unknown_labels", False):
        odd &= ~numbers.isnan()
    if odd.any():
        first = int(odd.reshape(len(labels), -1).any(1).nonzero()[0])
        value = float(numbers[odd][0])
        wanted = "0 or 1" if class_names else "a score"
        raise MisconfigurationException(
            f"labels of {type(dataset).__name__} hold {value:g}, first in sample {first} of the {name}: "
            f"give {wanted}, or leave such samples out; see {PAGE}"
        )
    for key in ("image_ids", "patient_ids"):
        names = getattr(described(dataset), key)
        if names is not None and len(names) != len(dataset):
            raise MisconfigurationException(
                f"{key} of {type(dataset).__name__} are {len(names)}, but there are {len(dataset)} samples in the "
                f"{name}: give one a sample; see {PAGE}"
            )
    if len(set(class_names)) < len(class_names):
        raise MisconfigurationException(f"class_names names a class twice: {', '.join(class_names)}")
    if class_names and (labels.ndim == 1 or labels.shape[1] not in (0, len(class_names))):
        raise MisconfigurationException(
            f"labels of {type(dataset).__name__} have shape {tuple(labels.shape)}, but there are {len(class_names)} "
            f"class_names: give (N, {len(class_names)}), one column a class; see {PAGE}"
        )
