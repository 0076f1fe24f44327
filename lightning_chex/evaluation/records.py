"""Measured values and maps on disk, so that an interrupted evaluation resumes where it stopped."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_chex.files import remove_unfinished, write_whole
from lightning_chex.json_text import parse_json
from lightning_chex.maps import Added, Key, MapStore, to_pixels
from lightning_chex.maps.store import drop_truncated_line

_IDENTITY = "evaluation.json"


class OtherEvaluationError(ValueError):
    """The folder holds an evaluation of something else."""


class Records:
    """Values by part, method and case, appended to files as soon as they are measured, and the maps beside them.

    Args:
        folder: of the evaluation; made if absent.
        identity: plain values that determine every number: checkpoint, data, settings. A folder with another identity
            is refused.

    Raises:
        OtherEvaluationError: the folder holds results of another evaluation, of a training run, or of unknown origin.
        ValueError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        path = folder / _IDENTITY
        # as it comes back from the file, in which a tuple is a list
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._identity["methods"] = _methods_on_record(folder, self._identity)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                remove_unfinished(folder)
            self._write_identity()
        except OSError as error:
            raise ValueError(
                f"output_dir={str(folder)!r} cannot be written to ({error.strerror}): give another folder"
            ) from error
        self._stores: dict[str, MapStore] = {}
        self._parts: dict[tuple[str, str], dict[Key, dict[str, Any]]] = {}

    def register_method(self, method: str, settings: dict[str, Any]) -> None:
        """Add a method with its settings to the identity.

        Raises:
            OtherEvaluationError: there are results of a method of that name with other settings.
        """
        settings = json.loads(json.dumps(settings))
        registered = self._identity["methods"].get(method)
        if registered is not None and registered != settings:
            raise OtherEvaluationError(
                f"{str(self.folder)!r} holds results of a method {method} with other settings ({registered}): give "
                "this method another name (rename its file), or give another output_dir"
            )
        self._identity["methods"][method] = settings
        self._write_identity()

    def remove_method(self, method: str) -> None:
        """Remove a registered method that could not be fitted, and so has no results."""
        del self._identity["methods"][method]
        self._write_identity()

    def of(self, part: str, method: str) -> dict[Key, dict[str, Any]]:
        """Return all records of a part of a method: case -> ``values`` and ``curves``."""
        if (part, method) not in self._parts:
            self._parts[part, method] = _read(self._path(part, method))
        return self._parts[part, method]

    def add(self, part: str, method: str, rows: dict[Key, dict[str, Any]]) -> None:
        """Append records to the file of a part of a method; they are on disk when this returns."""
        self.of(part, method).update(rows)
        path = self._path(part, method)
        _make_parents(path)
        with path.open("a") as file:
            for (image, target), values in rows.items():
                file.write(json.dumps({"image": image, "target": target, **values}) + "\n")

    def write_metadata(self, part: str, metadata: dict[str, Any]) -> None:
        """Write values that hold for all records of a part, whatever the method."""
        path = self.folder / "records" / part / "about.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(metadata, indent=1) + "\n")

    def read_metadata(self, part: str) -> dict[str, Any]:
        """Read the values of `write_metadata`; empty if there are none."""
        path = self.folder / "records" / part / "about.json"
        return _json(path, path.read_bytes()) if path.exists() else {}

    def save_maps(self, method: str, keys: Sequence[Key], values: Tensor, convergence: Tensor) -> None:
        """Save maps.

        Args:
            method: its name.
            keys: of the N cases.
            values: maps, float32 (N, H, W), or bits per feature cell, (N, h, w).
            convergence: of each map, (N,).
        """
        maps = values.cpu().float().numpy()
        added = []
        for saliency, (image, target), change in zip(maps, keys, convergence.tolist(), strict=True):
            # repr is the shortest text that gives the same number again
            added.append(Added(saliency, {"image": image, "target": target, "convergence": repr(change)}))
        self._maps(method).add(added)

    def load_map(self, method: str, key: Key, size: tuple[int, int]) -> tuple[Tensor, float] | None:
        """Read a map in pixels (H, W), and its convergence; None if there is none."""
        store = self._maps(method)
        values = store.get(key)
        if values is None:
            return None
        return to_pixels(torch.from_numpy(values)[None], size)[0], float(store.entries[key]["convergence"])

    def _maps(self, method: str) -> MapStore:
        if method not in self._stores:
            folder = self.folder / "maps" / method
            _make_parents(folder / "index.csv")
            self._stores[method] = MapStore(folder / "index.csv", folder, ("convergence",))
        return self._stores[method]

    def _path(self, part: str, method: str) -> Path:
        return self.folder / "records" / part / f"{method}.jsonl"

    def _write_identity(self) -> None:
        write_whole(self.folder / _IDENTITY, json.dumps(self._identity, indent=1) + "\n", sync=True)


def _json(path: Path, content: bytes) -> dict[str, Any]:
    """The object a file or a line of it holds; raises a ValueError that names the file if there is none."""
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to measure anew, or give another folder") from error


def _methods_on_record(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Methods of the evaluation that a folder holds, with their settings; empty for a new folder.

    Raises:
        OtherEvaluationError: the folder holds something other than an evaluation of this identity.
    """
    path = folder / _IDENTITY
    if path.exists():
        recorded = _json(path, path.read_bytes())
        differing = [key for key in recorded.keys() | identity.keys() if recorded.get(key) != identity.get(key)]
        differing = sorted(key for key in differing if key != "methods")
        if differing:
            raise OtherEvaluationError(
                f"output_dir={str(folder)!r} holds an evaluation with other {', '.join(differing)}: give another "
                "folder, or the same arguments to resume it"
            )
        methods: dict[str, Any] = recorded.get("methods", {})
        return methods
    # that of a training run, which the configuration of the evaluation would replace
    if (folder / "config.yaml").exists():
        raise OtherEvaluationError(
            f"output_dir={str(folder)!r} holds a config.yaml but no evaluation: give another folder"
        )
    if (folder / "results.json").exists() or (folder / "maps").exists():
        raise OtherEvaluationError(
            f"output_dir={str(folder)!r} holds results of unknown origin, without {_IDENTITY}: give another folder"
        )
    return {}


def _make_parents(path: Path) -> None:
    """Make the two folders above a file; that of the evaluation exists, or was removed, which is an error."""
    path.parent.parent.mkdir(exist_ok=True)
    path.parent.mkdir(exist_ok=True)


def _read(path: Path) -> dict[Key, dict[str, Any]]:
    if not path.exists():
        return {}
    drop_truncated_line(path)
    rows = [_json(path, line) for line in path.read_bytes().splitlines()]
    return {(row.pop("image"), row.pop("target")): row for row in rows}
