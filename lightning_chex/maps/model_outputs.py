"""The meaning of the outputs of any LightningModule, and the batches of any loader as dicts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_chex.attribution import IBA, OBJECTIVES, Attributor, layer_learners
from lightning_chex.attribution.network.outputs import output_tensor
from lightning_chex.data.contract import PAGE, XrayDataModule, subgroups_of_batch


@dataclass(frozen=True)
class Meaning:
    """The meaning of a model's outputs.

    Attributes:
        class_names: of the K outputs; empty for a score.
        exclusive: one class an image, by a softmax over the outputs; else each class has a sigmoid of its own.
        inferred: whether it was found from a batch, and not given by ``class_names``.
    """

    class_names: list[str]
    exclusive: bool = False
    inferred: bool = False

    @property
    def kind(self) -> str:
        """Name for people."""
        if not self.class_names:
            return "a score"
        if len(self.class_names) == 1:
            return "one class, present or absent"
        return f"{len(self.class_names)} " + ("exclusive classes (softmax)" if self.exclusive else "classes (sigmoid)")


def named_classes(pl_module: pl.LightningModule, data: XrayDataModule) -> list[str] | None:
    """Return the ``class_names`` of the module, else of its data, empty for scores; None where nothing names any."""
    for owner in (pl_module, data):
        names = getattr(owner, "class_names", None)
        if names is not None:
            return list(names)
    return [] if getattr(pl_module, "score_names", None) or data.score_names else None


def named_batch(batch: Any) -> dict[str, Any]:
    """Return a batch as a dict with ``image``, ``label`` and whatever else has an entry an image.

    Args:
        batch: such a dict, or a tuple or list of images, labels and further entries, which are dropped.

    Raises:
        MisconfigurationException: it has no images (B, C, H, W) or no labels.
    """
    if isinstance(batch, Mapping):
        found = dict(batch)
    elif isinstance(batch, list | tuple) and len(batch) >= 2:
        found = {"image": batch[0], "label": batch[1]}
    else:
        found = {}
    image = found.get("image")
    if not isinstance(image, Tensor) or image.ndim != 4 or "label" not in found:
        raise MisconfigurationException(
            "IBACallback explains batches that are a tuple (image, label, ...) or a dict with an 'image' and a "
            f"'label', images (B, C, H, W), not {_described(batch)}"
        )
    if isinstance(found.get("subgroups"), Mapping):
        found["subgroups"] = subgroups_of_batch(found)
    found["label"] = torch.as_tensor(found["label"], device=image.device)
    kept = (Tensor, list, tuple)
    return {
        key: value
        for key, value in found.items()
        if key == "label" or (isinstance(value, kept) and _length(value) == len(image))
    }


def infer_meaning(output: Any, label: Tensor, owner: str) -> Meaning:
    """Infer the meaning of a model's outputs from those of a batch and its labels.

    Args:
        output: of the network for some images of the batch, see `output_tensor`.
        label: of the whole batch: (B, K) for K classes, integers (B,) for one of K classes each, or (B,) or (B, 1) for
            a single output, which is a class where all are 0 or 1 and else a score.
        owner: name of the module's class, for messages.

    Raises:
        MisconfigurationException: the outputs are none of these, or the labels do not fit them.
    """
    try:
        numbers = output_tensor(output)
    except ValueError as error:
        raise MisconfigurationException(f"{owner} cannot be explained: {error}") from error
    if numbers.ndim not in (1, 2) or (numbers.ndim == 2 and numbers.shape[1] == 0):
        raise MisconfigurationException(
            f"the network of {owner} gives outputs of shape {tuple(numbers.shape)}; explained is (B, K) for classes, "
            "(B, 1) or (B,) for one class or a score: name the attribute that is the network (network=...)"
        )
    if label.is_floating_point() and not label.isfinite().all():
        raise _not_finite(label)
    count = 1 if numbers.ndim == 1 else numbers.shape[1]
    if count > 1:
        names = [f"class_{number}" for number in range(count)]
        return Meaning(names, exclusive=_are_indices(label), inferred=True)
    present_or_absent = bool(((label == 0) | (label == 1)).all())
    return Meaning(["class_1"] if present_or_absent else [], inferred=True)


def agreed(found: Sequence[Meaning]) -> Meaning:
    """Return what the first batches of all processes together mean: labels of one may show that it is a score."""
    return next((own for own in found if not own.class_names), found[0])


def given_meaning(class_names: list[str], label: Tensor) -> Meaning:
    """Return the meaning of outputs with known names: classes are exclusive where labels are one index an image."""
    return Meaning(class_names, exclusive=len(class_names) > 1 and _are_indices(label))


def explained_labels(batch: Mapping[str, Any], meaning: Meaning) -> Tensor:
    """Return the labels of a batch, see `named_batch`, as all else takes them.

    Returns:
        (B, K) between 0 and 1, of exclusive classes too, NaN where a class index is negative and so unknown; (B,) for a
        score.

    Raises:
        MisconfigurationException: they do not fit the images or the outputs.
    """
    label = batch["label"]
    images = len(batch["image"])
    classes = len(meaning.class_names)
    if label.ndim == 0 or len(label) != images:
        raise MisconfigurationException(
            f"the labels have shape {tuple(label.shape)} for {images} images: give one row an image"
        )
    if meaning.inferred and label.is_floating_point() and not label.isfinite().all():
        raise _not_finite(label)
    if not classes:
        if label.numel() != images:
            raise MisconfigurationException(
                f"the labels have shape {tuple(label.shape)}, but the model gives one score: give labels (B,) or (B, 1)"
            )
        return label.reshape(images)
    if classes > 1 and meaning.exclusive and _are_indices(label):
        return _one_hot(label.reshape(images), classes)
    if classes == 1 and label.ndim == 1:
        label = label[:, None]
    if tuple(label.shape[1:]) != (classes,):
        raise MisconfigurationException(
            f"the labels have shape {tuple(label.shape)}, but there are {classes} "
            f"{'outputs' if meaning.inferred else 'class_names'}: give labels (B, {classes}) in {{0, 1}}"
            + (", or one class index an image (B,)" if classes > 1 else "")
        )
    odd = (label < 0) | (label > 1)
    if meaning.inferred and odd.any():
        remedy = "give labels between 0 and 1"
        if classes == 1:
            remedy += ", or class_names = [] in the module if its output is a score"
        raise MisconfigurationException(
            f"a label is {label[odd][0]:g}, but the {classes} outputs were taken for {meaning.kind}: {remedy}"
        )
    return label


def explain_score(attributor: Attributor) -> None:
    """Give the default method the objective and beta for a score, in place as it may be learning already."""
    if isinstance(attributor, IBA):
        attributor.configure(replace(attributor.settings, objective="deviation"))


def explain_exclusive(attributor: Attributor) -> bool:
    """Let a method whose objective is the default one, of a class of its own, explain one of several exclusive classes.

    Returns:
        Whether there was something to change.
    """
    parts = [attributor, *layer_learners(attributor), getattr(attributor, "feature", None)]
    changed = False
    for part in parts:
        if isinstance(part, IBA) and part.objective is OBJECTIVES["binary_cross_entropy"]:
            part.settings = replace(part.settings, objective="softmax_cross_entropy")
            changed = True
    return changed


@contextmanager
def column_output(network: nn.Module) -> Iterator[None]:
    """Let a network with outputs (B,) return (B, 1), as class indices ask for, for the length of the context."""
    own = network.__dict__.get("forward")
    forward = network.forward

    def column(*args: Any, **kwargs: Any) -> Tensor:
        return output_tensor(forward(*args, **kwargs)).reshape(-1, 1)

    network.__dict__["forward"] = column
    try:
        yield
    finally:
        if own is None:
            del network.__dict__["forward"]
        else:
            network.__dict__["forward"] = own


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that occurs a second time, or None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _are_indices(label: Tensor) -> bool:
    return label.ndim == 1 or tuple(label.shape[1:]) == (1,)


def _one_hot(label: Tensor, classes: int) -> Tensor:
    numbers = label.float()
    odd = (numbers != numbers.round()) | (numbers >= classes)
    if odd.any():
        raise MisconfigurationException(
            f"a label is {numbers[odd][0]:g}, but the model has {classes} outputs, which are never taken for a score: "
            f"give one class index an image, 0 to {classes - 1}, or labels (B, {classes}) in {{0, 1}}"
        )
    index = label.long()
    return F.one_hot(index.clamp(min=0), classes).float().masked_fill((index < 0)[:, None], torch.nan)


def _not_finite(label: Tensor) -> MisconfigurationException:
    row = int((~label.isfinite()).reshape(len(label), -1).any(1).nonzero()[0])
    return MisconfigurationException(
        f"the labels of image {row} of a batch hold NaN or infinity: leave such images out; where NaN stands for an "
        f"unknown label, name the classes in class_names (see {PAGE})"
    )


def _length(value: Any) -> int:
    return 0 if isinstance(value, Tensor) and value.ndim == 0 else len(value)


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        parts = [f"{key!r}: {_form(value)}" for key, value in batch.items()]
        return f"a dict with {', '.join(parts) or 'nothing'}"
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {', '.join(map(_form, batch[:4])) or 'nothing'}"
    return f"a {_form(batch)}"


def _form(value: Any) -> str:
    return f"{type(value).__name__} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
