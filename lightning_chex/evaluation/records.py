"""Measured values and maps on disk, so that an interrupted evaluation resumes where it stopped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_chex.explaining import Added, Key, MapStore, to_pixels
from lightning_chex.explaining.map_store import remove_torn_line
from lightning_chex.files import remove_unfinished, write_whole
from lightning_chex.json_text import parse_json

_IDENTITY = "evaluation.json"


class OtherEvaluationError(ValueError):
    """The folder holds an evaluation of something else."""


class Records:
    """Values by part, method and case, appended to files as soon as they are known, and the maps beside them.

    Args:
        folder: of the evaluation; made if need be.
        identity: plain values that decide every number: checkpoint, data, settings. A folder begun with others is
            refused.

    Raises:
        OtherEvaluationError: the folder holds results of another evaluation, a training run, or results whose origin it
            does not tell.
        ValueError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        path = folder / _IDENTITY
        identity = json.loads(json.dumps(identity))
        if path.exists():
            known = _json(path, path.read_bytes())
            differing = sorted(
                k for k in known.keys() | identity.keys() if k != "methods" and known.get(k) != identity.get(k)
            )
            if differing:
                raise OtherEvaluationError(
                    f"output_dir={str(folder)!r} holds an evaluation with other {', '.join(differing)}: give another "
                    "folder, or the same arguments to go on with it"
                )
            identity["methods"] = known.get("methods", {})
        elif (folder / "config.yaml").exists():  # of a training run: the evaluation's own would take its place
            raise OtherEvaluationError(
                f"output_dir={str(folder)!r} holds a config.yaml that is no evaluation's: give another folder"
            )
        elif (folder / "results.json").exists() or (folder / "maps").exists():
            raise OtherEvaluationError(
                f"output_dir={str(folder)!r} holds results, but no {_IDENTITY} that says of what: give another folder"
            )
        else:
            identity["methods"] = {}
        self._identity = identity
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
        self._known: dict[tuple[str, str], dict[Key, dict[str, Any]]] = {}

    def admit(self, method: str, settings: dict[str, Any]) -> None:
        """Note a method's settings.

        Raises:
            OtherEvaluationError: there are results of a method of that name with other settings.
        """
        settings = json.loads(json.dumps(settings))
        known = self._identity["methods"].get(method)
        if known is not None and known != settings:
            raise OtherEvaluationError(
                f"{str(self.folder)!r} holds results of a method {method} with other settings ({known}): give this one "
                "another name (that of its file), or another output_dir"
            )
        self._identity["methods"][method] = settings
        self._write_identity()

    def dismiss(self, method: str) -> None:
        """Forget a method that turned out to be impossible, and of which there are no results."""
        del self._identity["methods"][method]
        self._write_identity()

    def of(self, part: str, method: str) -> dict[Key, dict[str, Any]]:
        """Everything known of a part of a method."""
        if (part, method) not in self._known:
            self._known[part, method] = _read(self._path(part, method))
        return self._known[part, method]

    def add(self, part: str, method: str, rows: dict[Key, dict[str, Any]]) -> None:
        """Keep what was measured; on disk when this returns."""
        self.of(part, method).update(rows)
        path = self._path(part, method)
        _make_parents(path)
        with path.open("a") as file:
            for (image, target), values in rows.items():
                file.write(json.dumps({"image": image, "target": target, **values}) + "\n")

    def note(self, part: str, facts: dict[str, Any]) -> None:
        """Keep what is true of all records of a part, whatever the method."""
        path = self.folder / "records" / part / "about.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(facts, indent=1) + "\n")

    def noted(self, part: str) -> dict[str, Any]:
        """What was kept by `note`; empty if nothing was."""
        path = self.folder / "records" / part / "about.json"
        return _json(path, path.read_bytes()) if path.exists() else {}

    def save_maps(self, method: str, keys: Sequence[Key], values: Tensor, convergence: Tensor) -> None:
        """Keep maps, float32 (N, H, W), or bits per feature cell, (N, h, w), and their convergence, (N,)."""
        entries = (
            {"image": image, "target": target, "convergence": repr(own)}
            for (image, target), own in zip(keys, convergence.tolist(), strict=True)
        )
        maps = values.cpu().float().numpy()
        self._maps(method).add(Added(*one) for one in zip(maps, entries, strict=True))

    def load_map(self, method: str, key: Key, size: tuple[int, int]) -> tuple[Tensor, float] | None:
        """A map that was kept, in pixels (H, W), and its convergence; or None."""
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


def _make_parents(path: Path) -> None:
    """Make the two folders above a file; that of the evaluation is there, or was removed, which is an error."""
    path.parent.parent.mkdir(exist_ok=True)
    path.parent.mkdir(exist_ok=True)


def _read(path: Path) -> dict[Key, dict[str, Any]]:
    if not path.exists():
        return {}
    remove_torn_line(path)
    rows = [_json(path, line) for line in path.read_bytes().splitlines()]
    return {(row.pop("image"), row.pop("target")): row for row in rows}
