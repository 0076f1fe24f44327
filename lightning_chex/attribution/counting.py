"""Which images of a batch are learnt from, where a model runs on images that must not be among them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class Counting:
    """Says which images of the batch at hand count, to all that begin to observe a model within `governing`.

    Each observer keeps to the one it began under, so that several can observe the same forward passes and learn from
    different images. A method of one's own that observes asks for `present()` when it begins, and for `kept` at each
    batch.

    Attributes:
        rows: bool (B,), True for an image that counts; or True for all images, False for none. Set anew before each
            batch.

    Example:
        >>> import torch
        >>> counting = Counting()
        >>> with counting.governing():
        ...     found = Counting.present()
        >>> counting.rows = torch.tensor([True, False, True])
        >>> found.kept(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
        [[1.0], [3.0]]
    """

    def __init__(self) -> None:
        self.rows: Tensor | bool = True

    @staticmethod
    def present() -> "Counting":
        """The innermost one that governs here; else one by which all images count."""
        return _present.get() or Counting()

    @contextmanager
    def governing(self) -> Iterator[None]:
        """Within the context, it is `present`."""
        token = _present.set(self)
        try:
            yield
        finally:
            _present.reset(token)

    def kept(self, features: Tensor) -> Tensor:
        """Keep the features of the images that count.

        Args:
            features: (B, ...), a row an image.

        Returns:
            (B', ...). Where the model has made another number of rows of the batch, nobody can say whose they are: then
            all of them if every image counts, else none.
        """
        if isinstance(self.rows, bool) or bool(self.rows.all()):
            return features if self.rows is not False else features[:0]
        return features[self.rows.to(features.device)] if len(self.rows) == len(features) else features[:0]


_present: ContextVar[Counting | None] = ContextVar("the counting that governs", default=None)
