"""The folder of an explanation: maps, their index, and the record of how they were made.

``maps/IMAGE__TARGET.npy``   float32 (H, W), in the frame of the network's input
``overlays/...png``          the same over the X-ray, on request
``index.csv``                a row per map, see `Row`; while several processes work, each has an index of its own
``explanation.json``         checkpoint, method, data and versions

A map is written under another name and renamed when it is whole, and its row follows: what the index names is there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.csv_text import csv_lines, csv_rows
from lightning_chex.files import remove_unfinished, write_whole
from lightning_chex.reporting.explanation import BITS_NOTE

RECORD = "explanation.json"


@dataclass(frozen=True)
class Row:
    """One map.

    Attributes:
        image: the image's id.
        target: the class, or the name of the score.
        prediction: the model's probability of the class, or its score.
        truth: the label, empty where it is not known.
        total: sum of the map. The column is called ``bits`` where that is the unit, else ``sum``; what bits compare
            with is said in ``explanation.json``.
        file: the map, relative to the folder.
        width: of the image file in pixels, empty where it is not known; ``reporting/frames.py`` leads back to it.
        height: the same.
        targets: how many maps this image has.
    """

    image: str
    target: str
    prediction: str
    truth: str
    total: str
    file: str
    width: str
    height: str
    targets: str


class MapFolder:
    """Reads and writes the folder.

    Args:
        folder: where it is.
        unit: ``bits`` or ``sum``.
        overlays: whether an image is finished only with its overlays.
        rank: number of this process.

    Raises:
        MisconfigurationException: the folder cannot be written to.
    """

    def __init__(self, folder: Path, unit: str, overlays: bool, rank: int = 0) -> None:
        self.folder = folder
        self.overlays = overlays
        self.header = [unit if field.name == "total" else field.name for field in fields(Row)]
        self.index = folder / ("index.csv" if rank == 0 else f"index_rank{rank}.csv")
        try:
            (folder / "maps").mkdir(parents=True, exist_ok=True)
            if overlays:
                (folder / "overlays").mkdir(exist_ok=True)
            write_whole(folder / f".rank{rank}", b"")
            (folder / f".rank{rank}").unlink()
        except OSError as error:
            raise MisconfigurationException(
                f"output_dir={str(folder)!r} cannot be written to ({error.strerror}): give another folder"
            ) from error

    # what makes it one explanation

    @staticmethod
    def check(folder: Path, settings: Mapping[str, Any]) -> None:
        """Refuse a folder that holds other maps than these settings would make; nothing is written.

        Raises:
            MisconfigurationException: it does.
        """
        path = folder / RECORD
        if not _holds_maps(folder):  # an attempt that failed before its first map binds nobody
            return
        remedy = f"give another --output_dir, or remove {folder}"
        if not path.exists():
            raise MisconfigurationException(f"{folder} holds maps but no {RECORD} that says of what: {remedy}")
        try:
            theirs = dict(_flat(json.loads(path.read_text(encoding="utf-8"))["settings"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MisconfigurationException(f"cannot read {path} ({error}): {remedy}") from error
        ours = dict(_flat(json.loads(json.dumps(settings))))
        differing = [
            f"{key} {_short(theirs.get(key))} there, {_short(ours.get(key))} now"
            for key in sorted({*theirs, *ours})
            if theirs.get(key) != ours.get(key)
        ]
        if differing:
            raise MisconfigurationException(
                f"{folder} holds another explanation ({'; '.join(differing)}). Nothing was changed: {remedy}"
            )

    def record(self, settings: Mapping[str, Any], **more: Any) -> None:
        """Write ``explanation.json``: the settings a continued run has to have, and what else is known."""
        told = {"settings": settings, **more, **({"bits": BITS_NOTE} if "bits" in self.header else {})}
        write_whole(self.folder / RECORD, json.dumps(told, indent=2, ensure_ascii=False) + "\n", sync=True)

    @property
    def holds_maps(self) -> bool:
        """Whether there is any map."""
        return _holds_maps(self.folder)

    @property
    def recorded(self) -> dict[str, Any]:
        """What ``explanation.json`` says; empty if there is none."""
        path = self.folder / RECORD
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    # maps

    def write(self, maps: Sequence[tuple[Row, NDArray[np.float32] | None, NDArray[np.uint8] | None]]) -> None:
        """Write maps (H, W) and overlays (H, W, 3), then their rows; a map of None is there already, with its row."""
        rows = []
        for row, saliency, overlay in maps:
            if saliency is not None:
                write_whole(self.folder / row.file, partial(np.save, arr=saliency))
                rows.append([getattr(row, field.name) for field in fields(Row)])
            if overlay is not None:
                write_whole(self._overlay(row.file), partial(Image.fromarray(overlay).save, format="png"))
        new = not self.index.exists()
        with self.index.open("a", newline="", encoding="utf-8") as file:
            file.write((",".join(self.header) + "\n" if new else "") + csv_lines(rows))

    def consolidate(self, order: Iterable[str] = ()) -> dict[str, list[Row]]:
        """Join the indices of all processes in ``index.csv``; process 0 alone may call this, while none is writing.

        Rows that are there twice, are torn, or lack their file go; so do all rows of an image that is not complete.

        Args:
            order: image ids in the order of the rows; others come last.

        Returns:
            The rows of the images that need no map any more.
        """
        remove_unfinished(self.folder)
        paths = [path for path in [self.folder / "index.csv"] if path.exists()]
        paths += sorted(self.folder.glob("index_rank*.csv"))
        found: dict[str, dict[str, Row]] = {}
        for path in paths:
            content = path.read_bytes()
            # a process that was killed may have left half a line, of which half a number is a number too
            whole_lines = content[: content.rfind(b"\n") + 1].decode("utf-8")
            for cells in csv_rows(whole_lines):
                if len(cells) == len(self.header) and cells != self.header:
                    row = Row(*cells)
                    if row.targets.isdigit() and (self.folder / row.file).is_file():
                        found.setdefault(row.image, {})[row.target] = row
        whole = {image: list(rows.values()) for image, rows in found.items() if _is_complete(rows)}
        places = {image: place for place, image in enumerate(order)}
        images = sorted(whole, key=lambda image: places.get(image, len(places)))
        rows = [[getattr(row, field.name) for field in fields(Row)] for image in images for row in whole[image]]
        write_whole(self.folder / "index.csv", csv_lines([self.header, *rows]), sync=True)
        for path in paths:
            if path.name != "index.csv":
                path.unlink()
        return {image: whole[image] for image in images}

    def is_drawn(self, rows: Iterable[Row]) -> bool:
        """Whether the overlays that are asked for are there."""
        return not self.overlays or all(self._overlay(row.file).is_file() for row in rows)

    def _overlay(self, file: str) -> Path:
        return self.folder / "overlays" / Path(file).with_suffix(".png").name


def read_index(folder: Path) -> list[Row]:
    """Read the rows of a finished explanation."""
    content = (folder / "index.csv").read_bytes().decode("utf-8")
    return [Row(*cells) for cells in csv_rows(content)[1:]]


def _holds_maps(folder: Path) -> bool:
    return any((folder / "maps").glob("*.npy"))


def _is_complete(rows: Mapping[str, Row]) -> bool:
    return all(int(row.targets) == len(rows) for row in rows.values())


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings under names such as ``attributor.layer``."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _short(value: Any) -> str:
    words = json.dumps(value, ensure_ascii=False)
    return words if len(words) <= 60 else f"{words[:57]}..."
