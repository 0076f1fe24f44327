"""Weights of the same network under the names of another implementation, told by their order alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

_COUNTER = "num_batches_tracked"
"""How many batches a batch norm has seen was not kept before 2018, and is not needed."""


@dataclass(frozen=True)
class Renamed:
    """Tensors of a file under the names of a network.

    Attributes:
        tensors: by the network's names; None where they do not fit.
        misfit: the first tensor that does not fit, in words; empty where all do.
    """

    tensors: dict[str, Tensor] | None
    misfit: str = ""


def in_order(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], head: str) -> Renamed:
    """Give the tensors of a file, none of whose names is the network's, the network's names by their order.

    They fit only if there are as many, and each has the shape of ours at its place and the same last part of its name
    (``weight``, ``bias``, ``running_mean``, ...). Only the head may be of another size, or lacking.

    Args:
        theirs: in the order of the file.
        ours: state dict of the network.
        head: name of its last layer.

    Returns:
        The renamed tensors, or the first misfit.
    """
    given = [(name, value) for name, value in theirs.items() if not name.endswith(_COUNTER)]
    wanted = [(name, value) for name, value in ours.items() if not name.endswith(_COUNTER)]
    of_head = {name for name, _ in wanted if name.startswith(f"{head}.")}
    if len(given) == len(wanted) - len(of_head):
        wanted = [(name, value) for name, value in wanted if name not in of_head]
    for (name, value), (own, like) in zip(given, wanted, strict=False):
        same_kind = name.rpartition(".")[2] == own.rpartition(".")[2]
        same_shape = value.shape == like.shape or (own in of_head and value.ndim == like.ndim)
        if not (same_kind and same_shape):
            return Renamed(None, f"{name} {tuple(value.shape)} is where {own} {tuple(like.shape)} is here")
    if len(given) != len(wanted):
        return Renamed(None, f"{len(given)} tensors, {len(wanted)} here")
    return Renamed({own: value for (_, value), (own, _) in zip(given, wanted, strict=True)})
