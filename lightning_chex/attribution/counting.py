"""Which images of a batch are learnt from, where a model runs on images that must not be among them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_rows: ContextVar[tuple[Tensor, ...]] = ContextVar("rows that count", default=())


@contextmanager
def counting(rows: Tensor | None) -> Iterator[None]:
    """Within the context, `Attributor.observing` learns from these images of every batch only.

    Of several contexts, begun and ended in any order, an image has to count in all. A method of one's own that observes
    asks `counted` for its features.

    Args:
        rows: bool (B,), True for an image that counts; None for all images.

    Example:
        >>> with counting(torch.tensor([True, False, True])):
        ...     counted(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
        [[1.0], [3.0]]
    """
    if rows is not None:
        _rows.set((*_rows.get(), rows))
    try:
        yield
    finally:
        _rows.set(tuple(own for own in _rows.get() if own is not rows))


def counted(features: Tensor) -> Tensor:
    """Keep the features of the images that count.

    Args:
        features: (B, ...), a row an image.

    Returns:
        (B', ...). Where the model has made another number of rows of the batch, nobody can say whose they are: then all
        of them if every image counts, else none.
    """
    left_out = [rows for rows in _rows.get() if not rows.all()]
    if not left_out:
        return features
    if any(len(rows) != len(features) for rows in left_out):
        return features[:0]
    return features[torch.stack(left_out).all(0).to(features.device)]
