"""The folder of an explanation: maps, their index, and the record of how they were made.

``maps/shard_00000.npy``, ...  the maps, see ``map_store.py``: those of a bottleneck as bits per feature cell
``index.csv``                  a row per map, see `COLUMNS`; while several processes work, each has an index of its own
``explanation.json``           checkpoint, method, data and versions
``npy/IMAGE__TARGET.npy``      on request: float32 (H, W), in the frame of the network's input
``overlays/...png``            on request: the same over the X-ray, all on one colour scale, drawn at the end
``overlay_xrays/IMAGE.png``    the grey X-rays that the overlays are drawn from, also when more maps change the scale
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_chex.attribution import Attribution, bits_per_pixel, empty_maps
from lightning_chex.data.contract import names_of
from lightning_chex.files import safe_name, write_whole
from lightning_chex.json_text import load_json
from lightning_chex.maps.store import Added, Entry, MapStore, read_entries, read_map
from lightning_chex.report.explanation import BITS, BITS_NOTE
from lightning_chex.report.pictures import overlay, with_note
from lightning_chex.report.scale import SATURATED, shared_scale_limit

RECORD = "explanation.json"

XRAYS = "overlay_xrays"
"""Folder of the grey X-rays under the overlays."""

FORMAT = 3
"""Of the files; 1 was one file a map, 2 had no column ``empty``."""

COLUMNS = ("prediction", "truth", "total", "empty", "convergence", "pixels", "width", "height", "targets")
"""What the index says of a map beside its image, target, file and row.

===============  ============================================================================================
``prediction``   the model's probability of the class, or its score
``truth``        the label, empty where it is not known
``total``        sum of the map; the column is called ``bits`` where that is the unit, else ``sum``
``empty``        1 for a map that holds too little to say anything, see ``attribution/emptiness.py``; else 0
``convergence``  see `Attribution`; empty for methods that do not iterate
``pixels``       height x width of the map, those of the network's input
``width``        of the image file, empty where it is not known; ``report/frames.py`` leads back to it
``height``       the same
``targets``      how many maps this image has
===============  ============================================================================================
"""


class Drawn(NamedTuple):
    """A map to write: its entry, its values or None if they are there already, and its pixels if they are wanted."""

    entry: Mapping[str, str]
    values: NDArray[np.float32] | None
    pixels: NDArray[np.float32] | None = None


class MapFolder:
    """Reads and writes the folder.

    Args:
        folder: where it is.
        unit: ``bits`` or ``sum``.
        overlays: whether an image is finished only with the X-ray that its overlays are drawn from.
        npy: whether it is finished only with a file for each of its maps.
        rank: number of this process.

    Raises:
        MisconfigurationException: the folder cannot be written to.
    """

    def __init__(self, folder: Path, unit: str, overlays: bool = False, npy: bool = False, rank: int = 0) -> None:
        self.folder = folder
        self.unit = unit
        self.overlays = overlays
        self.npy = npy
        wanted = ["maps"] + ["overlays", XRAYS] * overlays + ["npy"] * npy
        try:
            for name in wanted:
                (folder / name).mkdir(parents=True, exist_ok=True)
            write_whole(folder / f".rank{rank}", b"")
            (folder / f".rank{rank}").unlink()
        except OSError as error:
            raise MisconfigurationException(
                f"output_dir={str(folder)!r} cannot be written to ({error.strerror}): give another folder"
            ) from error
        columns = [unit if name == "total" else name for name in COLUMNS]
        try:
            self.store = MapStore(folder / "index.csv", folder / "maps", columns, rank)
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error

    @staticmethod
    def check(folder: Path, settings: Mapping[str, Any]) -> None:
        """Refuse a folder that holds other maps than these settings would make; nothing is written.

        Raises:
            MisconfigurationException: it does.
        """
        path = folder / RECORD
        if not holds_maps(folder):  # an attempt that failed before its first map may be replaced
            return
        remedy = f"give another --output_dir, or remove {folder}"
        if not path.exists():
            raise MisconfigurationException(f"{folder} holds maps but no {RECORD} that says of what: {remedy}")
        try:
            theirs = dict(_flat(load_json(path)["settings"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
        content = {"settings": settings, **more, **({"bits": BITS_NOTE} if self.unit == "bits" else {})}
        write_whole(self.folder / RECORD, json.dumps(content, indent=2, ensure_ascii=False) + "\n", sync=True)

    @property
    def recorded(self) -> dict[str, Any]:
        """Contents of ``explanation.json``; empty if there is none."""
        path = self.folder / RECORD
        if not path.exists():
            return {}
        try:
            return load_json(path)
        except ValueError as error:
            raise MisconfigurationException(
                f"cannot read {path} ({error}): remove {self.folder}, or give another --output_dir"
            ) from error

    def write(self, maps: Sequence[Drawn]) -> None:
        """Write maps, and what is wanted beside them."""
        for one in maps:
            if one.pixels is not None:
                write_whole(self._beside(one.entry, "npy"), partial(np.save, arr=one.pixels))
        self.store.add(Added(one.values, one.entry) for one in maps if one.values is not None)

    def consolidate(self, order: Iterable[str] = ()) -> dict[str, list[Entry]]:
        """Join the indices of all processes in ``index.csv``; process 0 alone may call this, while none is writing.

        Args:
            order: image ids in the order of the rows; others come last.

        Returns:
            The entries of the images that need no map any more.
        """
        return self.store.consolidate(_is_complete, order)

    def is_drawn(self, entries: Iterable[Mapping[str, str]]) -> bool:
        """Whether all that is wanted beside the maps is there."""
        for entry in entries:
            if self.overlays and not self.has_xray(entry["image"]):
                return False
            if self.npy and not self._beside(entry, "npy").is_file():
                return False
        return True

    def count_empty(self) -> tuple[int, int]:
        """Number of empty maps in the index, and of all maps."""
        entries = read_index(self.folder)
        return sum(entry["empty"] == "1" for entry in entries), len(entries)

    def has_xray(self, image: str) -> bool:
        """Whether the X-ray under the overlays of an image is there."""
        return self._xray(image).is_file()

    def write_xray(self, image: str, grey: Tensor) -> None:
        """Keep the X-ray (H, W) in [0, 1] under the overlays of an image, in 256 steps."""
        picture = Image.fromarray(np.round(255 * grey.clamp(0, 1).numpy()).astype(np.uint8))
        write_whole(self._xray(image), partial(picture.save, format="png"))

    def scale_limit(self) -> float:
        """Value with the full colour in all overlays: the shared limit of all maps in the index, in any order.

        Returns:
            The limit in the unit of the maps; 0 if there is nothing on any of them.
        """
        unit = BITS if self.unit == "bits" else self.unit
        return shared_scale_limit((read_saliency(self.folder, entry) for entry in read_index(self.folder)), unit)

    def draw_overlays(self, limit: float, rank: int = 0, processes: int = 1) -> None:
        """Draw this process's share of the overlays that are missing or were drawn on another scale.

        Maps whose X-ray was not kept, because overlays were not asked for when they were made, are left out.
        """
        same_scale = self.recorded.get("overlays") == self._scale_record(limit)
        for entry in read_index(self.folder)[rank::processes]:
            path, xray = self._beside(entry, "overlays"), self._xray(entry["image"])
            if not xray.is_file() or (same_scale and path.is_file()):
                continue
            with Image.open(xray) as picture:
                grey = torch.from_numpy(np.array(picture, np.float32) / 255)
            shown = overlay(grey, read_saliency(self.folder, entry), limit or 1.0)
            drawn = Image.fromarray(with_note(shown, "empty map") if entry["empty"] == "1" else shown)
            write_whole(path, partial(drawn.save, format="png"))

    def record_scale(self, limit: float) -> None:
        """Write the scale of the overlays into ``explanation.json``, after all of them are drawn."""
        content = {**self.recorded, "overlays": self._scale_record(limit)}
        write_whole(self.folder / RECORD, json.dumps(content, indent=2, ensure_ascii=False) + "\n", sync=True)

    def _scale_record(self, limit: float) -> dict[str, Any]:
        unit = BITS if self.unit == "bits" else "value of the map"
        return {"full_colour_from": limit, "unit": unit, "share_of_marked_pixels_beyond": SATURATED}

    def _xray(self, image: str) -> Path:
        return self.folder / XRAYS / f"{safe_name(image)}.png"

    def _beside(self, entry: Mapping[str, str], name: str) -> Path:
        suffix = "png" if name == "overlays" else "npy"
        return self.folder / name / f"{map_name(entry['image'], entry['target'])}.{suffix}"


def entries_of(
    batch: dict[str, Any],
    predictions: Tensor,
    rows: Tensor,
    targets: Sequence[str],
    class_names: Sequence[str],
    found: Attribution,
    unit: str,
) -> list[dict[str, str]]:
    """Describe the maps of a batch for the index; see `COLUMNS`.

    Args:
        batch: ``image_id``, and ``label`` and ``source_size`` where they are known.
        predictions: (B, K) or (B,).
        rows: the image each map belongs to, (N,); all maps of an image are here.
        targets: names of what they explain, N.
        class_names: names of the K outputs, empty for a score.
        found: the maps (N, H, W), on the CPU.
        unit: name of the column for the sum of a map.
    """
    count, ids = len(predictions), names_of(batch["image_id"])
    predicted = predictions.reshape(count, -1).tolist()
    truths = batch["label"].reshape(count, -1).tolist() if "label" in batch else None
    sizes = batch.get("source_size") or [("", "")] * count
    maps_of = torch.bincount(rows, minlength=count).tolist()
    columns = {name: k for k, name in enumerate(class_names)}
    totals, converged = found.maps.double().sum((1, 2)).tolist(), found.convergence.tolist()
    empty = empty_maps(found.maps, BITS if unit == "bits" else unit).tolist()
    described = []
    for at, target, total, nothing, convergence in zip(rows.tolist(), targets, totals, empty, converged, strict=True):
        k = columns.get(target, 0)
        height, width = map(str, sizes[at])
        described.append(
            {
                "image": ids[at],
                "target": target,
                "prediction": f"{predicted[at][k]:.6g}",
                "truth": "" if truths is None or math.isnan(truths[at][k]) else f"{truths[at][k]:g}",
                unit: f"{total:.6g}",
                "empty": str(int(nothing)),
                "convergence": "" if math.isnan(convergence) else f"{convergence:.3g}",
                "pixels": "x".join(map(str, found.maps.shape[1:])),
                "width": width,
                "height": height,
                "targets": str(maps_of[at]),
            }
        )
    return described


def map_name(image: str, target: str) -> str:
    """Name the file of a map, without suffix: ``<image>__<target>``, what a file system may not like replaced.

    A name that had to be changed ends with a piece of its hash, so that two names never meet.

    Example:
        >>> map_name("00013118_008", "Mass")
        '00013118_008__Mass'
        >>> map_name("../a b", "Mass")
        'a_b-2c2c791a__Mass'
    """
    return f"{safe_name(image)}__{safe_name(target)}"


def read_index(folder: Path) -> list[Entry]:
    """Read the rows of an explanation."""
    return read_entries(folder / "index.csv")


def read_saliency(folder: Path, entry: Mapping[str, str]) -> Tensor:
    """Read a map of an explanation, float32 (H, W), in the frame of the network's input."""
    height, width = map(int, entry["pixels"].split("x"))
    return to_pixels(torch.from_numpy(read_map(folder, entry))[None], (height, width))[0]


def to_pixels(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, H, W) of what a store keeps: maps already, or bits per feature cell, (N, h, w)."""
    return values if values.shape[-2:] == size else bits_per_pixel(values, size)


def holds_maps(folder: Path) -> bool:
    """Whether an explanation has any map."""
    return any((folder / "maps").glob("*.npy"))


def _is_complete(entries: Sequence[Entry]) -> bool:
    return all(entry["targets"] == str(len(entries)) for entry in entries)


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
