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
    """A mask that can be switched on and off: uint8 (H, W), 0 where there is nothing, and the names of its values."""

    mask: NDArray[np.uint8]
    names: Mapping[int, str]


@dataclass(frozen=True)
class Picture:
    """One picture for a logger; no part of it names a patient or an image file.

    Attributes:
        caption: one line.
        image: the plain picture, uint8 (H, W) or (H, W, 3); an X-ray has the same pixels at every step.
        drawn: the picture with map, boxes and label drawn on it, uint8 (H', W', 3), for loggers without layers.
        boxes: on ``image``.
        layers: masks on ``image``, by name.
    """

    caption: str
    image: NDArray[np.uint8]
    drawn: NDArray[np.uint8]
    boxes: Sequence[Box] = ()
    layers: Mapping[str, Layer] = field(default_factory=dict)


class LoggerAdapter(Protocol):
    """Sends pictures, tables and files to one logger; Lightning itself sends scalars to every logger.

    A file of ``report/loggers`` has a class ``Adapter`` with these methods. Its constructor takes the logger and
    ``best``: for the key of a scalar whether its maximum (``max``) or minimum (``min``) stands for the whole run.
    """

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Log pictures under a key such as ``val/iba_maps``; their order is the same at every step."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """Log a table; without a step it belongs to the whole run."""

    def file(self, key: str, path: Path, step: int) -> None:
        """Log a PNG or CSV file of the run."""
