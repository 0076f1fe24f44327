"""Which images of a batch are learnt from, where a model runs on images that must not be among them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_rows: ContextVar[Tensor | None] = ContextVar("rows that count", default=None)


@contextmanager
def counting(rows: Tensor | None) -> Iterator[None]:
    """Within the context, `Attributor.observing` learns from these images of every batch only.

    Contexts nest; the innermost one holds. A method of one's own that observes asks `counted` for its features.

    Args:
        rows: bool (B,), True for an image that counts; None for all images.

    Example:
        >>> import torch
        >>> with counting(torch.tensor([True, False, True])):
        ...     counted(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
        [[1.0], [3.0]]
    """
    former = _rows.get()
    _rows.set(rows)
    try:
        yield
    finally:
        _rows.set(former)


def counted(features: Tensor) -> Tensor:
    """Keep the features of the images that count.

    Args:
        features: (B, ...), a row an image.

    Returns:
        (B', ...). Where the model has made another number of rows of the batch, nobody can say whose they are: then all
        of them if every image counts, else none.
    """
    rows = _rows.get()
    if rows is None or bool(rows.all()):
        return features
    return features[rows.to(features.device)] if len(rows) == len(features) else features[:0]
