"""Batches of any LightningModule, and what the outputs of its network stand for where it does not say so.

A batch is a dict with ``image`` and ``label``, or a tuple or list ``(image, label, ...)``, of which further members are
not used. Labels are of one of these forms, for K outputs:

==============  ==========================================  =========================================================
kind            labels                                      explained
==============  ==========================================  =========================================================
multi-label     (B, K) in {0, 1}, NaN for unknown           each positive class, else the likeliest
multi-class     integers (B,) or (B, 1), one of K > 1       the true class; the likeliest where the label is negative
binary          (B,) or (B, 1) in {0, 1}, K = 1             the one class, named ``class_1``
score           (B,) or (B, 1) of other values, K = 1       the score
==============  ==========================================  =========================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["multi-label", "multi-class", "binary", "score"]


@dataclass(frozen=True)
class Seen:
    """What the first validation batch of one process shows.

    Attributes:
        output: shape of the network's output for it, without B.
        label: shape of the labels, without B.
        whole: the labels have an integer or bool dtype.
        low: least known label; infinity without any.
        high: greatest known label; minus infinity without any.
        binary: all known labels are 0 or 1.
    """

    output: tuple[int, ...]
    label: tuple[int, ...]
    whole: bool
    low: float
    high: float
    binary: bool


@dataclass(frozen=True)
class Inferred:
    """What the outputs stand for.

    Attributes:
        kind: see the head of this file.
        class_names: of the K classes; empty for a score.
    """

    kind: Kind
    class_names: list[str]


def named_batch(batch: Any) -> Any:
    """Return a tuple or list ``(image, label, ...)`` as a dict of the two; anything else as it is."""
    if isinstance(batch, (tuple, list)) and len(batch) >= 2 and all(isinstance(part, Tensor) for part in batch[:2]):
        return {"image": batch[0], "label": batch[1]}
    return batch


def seen_in(output: Any, label: Tensor) -> Seen:
    """Collect what `infer` needs.

    Args:
        output: of the network, for any number of images.
        label: (B,) or (B, ...).

    Raises:
        MisconfigurationException: the output is no tensor.
    """
    if not isinstance(output, Tensor):
        raise MisconfigurationException(
            f"the network returns a {type(output).__name__}, but what can be explained is a tensor (B, K): name the "
            "module that returns one as the callback's network"
        )
    values = label.detach().double()
    known = values[values.isfinite()]
    return Seen(
        output=tuple(output.shape[1:]),
        label=tuple(label.shape[1:]),
        whole=not label.is_floating_point(),
        low=float(known.min()) if known.numel() else float("inf"),
        high=float(known.max()) if known.numel() else float("-inf"),
        binary=bool(((known == 0) | (known == 1)).all()),
    )


def infer(seen: Sequence[Seen]) -> Inferred:
    """Decide by the first batches of all processes, one or more, what the outputs stand for.

    Raises:
        MisconfigurationException: labels and outputs do not fit one of the kinds.
    """
    first = seen[0]
    outputs = first.output[0] if len(first.output) == 1 else 1 if first.output == () else 0
    whole = all(each.whole for each in seen)
    binary = all(each.binary for each in seen)
    single = first.label in [(), (1,)]
    if outputs == 1 and single:
        if not binary:
            return Inferred("score", [])
        if first.output == (1,):
            return Inferred("binary", ["class_1"])
    names = [f"class_{k}" for k in range(outputs)]
    if outputs > 1 and single and whole and max(each.high for each in seen) < outputs:
        return Inferred("multi-class", names)
    in_range = all(each.low >= 0 and each.high <= 1 for each in seen)
    if outputs > 1 and first.label == (outputs,) and in_range:
        return Inferred("multi-label", names)
    raise MisconfigurationException(
        f"the network gives outputs of shape {('B', *first.output)} and the labels have shape {('B', *first.label)}, "
        f"{'integers' if whole else 'floats'} from {min(each.low for each in seen):g} to "
        f"{max(each.high for each in seen):g}: that is none of multi-label (B, K) in {{0, 1}}, class index (B,) of K "
        "outputs, one logit (B, 1) with labels in {0, 1}, or one score. Name the module with such outputs as the "
        "callback's network, or set class_names on the LightningModule, empty for a score"
    )


def with_class_labels(batch: Mapping[str, Any], classes: int) -> tuple[dict[str, Any], bool]:
    """Bring the labels of a batch to (B, K) for K classes; for a score they stay as they are.

    Args:
        batch: with a tensor ``label``.
        classes: K; 0 for a score.

    Returns:
        The batch, and whether its labels are class indices of exclusive classes. A negative index is unknown: NaN.

    Raises:
        MisconfigurationException: an index is K or more.
    """
    label = batch["label"]
    if not classes or label.shape[1:] not in [(), (1,)]:
        return dict(batch), False
    if classes == 1:
        return {**batch, "label": label.reshape(-1, 1)}, False
    if label.is_floating_point() or label.ndim == 0:
        return dict(batch), False
    index = label.reshape(-1).long()
    if len(index) and int(index.max()) >= classes:
        raise MisconfigurationException(
            f"a label is the class index {int(index.max())}, but there are {classes} classes: give 0 to {classes - 1}"
        )
    one_hot = F.one_hot(index.clamp(min=0), classes).float()
    return {**batch, "label": one_hot.masked_fill((index < 0)[:, None], float("nan"))}, True


def log_odds(logits: Tensor) -> Tensor:
    """Log odds of each class under a softmax: their sigmoid is the softmax of the logits.

    Args:
        logits: (B, K), K > 1.

    Returns:
        (B, K).
    """
    # the class itself left out of the sum: log(1 - p) from p would lose all digits near 1
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    others = logits[:, None].masked_fill(own, -torch.inf).logsumexp(2)
    return logits - others
