"""Protocol of the adapters that send pictures, tables and files to one logger each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A box on a picture: its corners in pixels, and the class it belongs to."""

    corners: tuple[float, float, float, float]
    class_index: int
    name: str


@dataclass(frozen=True)
class Layer:
    """A mask on a picture, to be switched on and off: uint8 (H, W), 0 for nothing, and the names of its values."""

    mask: NDArray[np.uint8]
    names: Mapping[int, str]


@dataclass(frozen=True)
class Picture:
    """One picture for a logger; no part of it names a patient or an image file.

    Attributes:
        caption: one line.
        image: without anything on it, uint8 (H, W) or (H, W, 3); the same picture again is the same array of values.
        drawn: with all that belongs on it, uint8 (H', W', 3), for loggers that know no layers.
        boxes: on ``image``.
        layers: masks on ``image``, by name.
    """

    caption: str
    image: NDArray[np.uint8]
    drawn: NDArray[np.uint8]
    boxes: Sequence[Box] = ()
    layers: Mapping[str, Layer] = field(default_factory=dict)


class Board(Protocol):
    """Adapter that sends pictures, tables and files to one logger; Lightning sends the scalars to every logger.

    A file of ``report/loggers`` has a class ``Board`` with these methods, built from the logger and from ``best``:
    which value of a scalar stands for the whole run, ``max`` or ``min``, by the scalar's key.
    """

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Show pictures under a key such as ``val/iba_maps``; those of a key keep their order over the steps."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """Show a table; without a step it belongs to the whole run."""

    def file(self, key: str, path: Path, step: int) -> None:
        """Show or keep a file of the run: PNG, or CSV."""
