"""Every figure of three small runs, to see that a change of structure changed none of them.

    PYTHONPATH=tests/evaluation python -m benchmarks.recorded_evaluation FILE       # write the figures down
    PYTHONPATH=tests/evaluation python -m benchmarks.recorded_evaluation FILE FILE2 # compare two of these

Record the commits before and after the change on the same machine: other processors round otherwise.

Trains the small networks of the tests (classes, detectors, severity) with the callback, evaluates the whole line-up and
three methods from files, and explains the test images. What is recorded: the logged scalars, methods, controls,
tuned levels and the sum of every map with every digit, and hashes of the paired differences.
"""

import csv
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import small_evaluations
from small_evaluations import CONFIG, SETTINGS, trained

from lightning_chex.cli.main import main as chex
from lightning_chex.maps import read_index, read_saliency

TARGETS = ("pathologies", "detectors", "severity")


def record(target: str, folder: Path) -> dict[str, Any]:
    """Train, evaluate and explain one small network."""
    CONFIG["trainer"]["logger"] = {
        "class_path": "pytorch_lightning.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder / "run")},
    }
    model = trained(folder, target)
    logged = [list(csv.DictReader(path.open())) for path in sorted((folder / "run").rglob("metrics.csv"))]
    common = ["--config", model.config, "--ckpt_path", model.checkpoint, "--trainer.logger", "false"]
    files = ",".join(model.files.values()) if target == "pathologies" else ""
    chex(["evaluate", *common, f"--output_dir={folder / 'evaluated'}", *SETTINGS])
    results = json.loads((folder / "evaluated" / "results.json").read_text())
    if files:
        chex(["evaluate", *common, f"--output_dir={folder / 'files'}", *SETTINGS, f"--methods=[{files}]"])
        results["files"] = json.loads((folder / "files" / "results.json").read_text())["methods"]
    chex(["explain", *common, f"--output_dir={folder / 'explained'}"])
    explained = folder / "explained"
    maps = {
        f"{row['image']}__{row['target']}.npy": float(read_saliency(explained, row).double().sum())
        for row in read_index(explained)
    }
    return {
        "logged": logged,
        **{key: brief(results.get(key) or {}) for key in ("methods", "controls", "files")},
        "left_out": results["left_out"],
        "differences": {key: digest(json.dumps(pairs).encode()) for key, pairs in results["differences"].items()},
        "tuned_levels": results["protocol"]["tuned_levels"],
        "maps": dict(sorted(maps.items())),
    }


def digest(content: bytes) -> str:
    """A short hash."""
    return hashlib.sha256(content).hexdigest()[:16]


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """Of every measure of every method the mean, and a hash of all that is beside it: intervals, classes, numbers."""
    return {
        name: {key: [cell["value"], digest(json.dumps(cell, sort_keys=True).encode())] for key, cell in own.items()}
        for name, own in found.items()
    }


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """What differs, by name; NaN equals NaN."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [line for key in sorted({*a, *b}) for line in differences(a.get(key), b.get(key), f"{name}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [line for i, pair in enumerate(zip(a, b, strict=True)) for line in differences(*pair, f"{name}[{i}]")]
    same = a == b or (a != a and b != b)
    return [] if same else [f"{name}: {str(a)[:80]} -> {str(b)[:80]}"]


def main() -> None:
    """Record, or compare."""
    if len(sys.argv) == 3:
        found = differences(*(json.loads(Path(path).read_text()) for path in sys.argv[1:]))
        print("\n".join(found) or "every figure is the same")
        sys.exit(bool(found))
    assert small_evaluations.CONFIG is CONFIG
    with tempfile.TemporaryDirectory() as folder:
        told = {target: record(target, Path(folder) / target) for target in TARGETS}
    Path(sys.argv[1]).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
