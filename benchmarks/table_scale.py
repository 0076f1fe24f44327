"""Start-up of a TableDataModule with tables of 10,000, 100,000 and 400,000 rows.

``python -m benchmarks.table_scale [--rows 10000 100000 400000] [--rounds 3]`` writes
``benchmarks/results/table_scale.md``. The images are hard links to tiny PNGs, in folders of a thousand, so that the
seconds are those of tables and of opening files, not of decoding; they are in the page cache, a slow disk takes longer.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from PIL import Image

from benchmarks import origin
from benchmarks.pages import spread
from lightning_chex.data import TableDataModule
from lightning_chex.data.images.images import check_images
from lightning_chex.data.table.locating import find_below

PAGE = Path(__file__).parent / "results" / "table_scale.md"
PHASES = ("read and recognise", "find files", "open all images", "all checks", "splits", "fingerprint", "start-up")
LINKS = 20_000
"""Links to one file: file systems allow some 32,000 or 65,000."""


def generate(root: Path, rows: int) -> None:
    """Write images and ``T.csv``: four images a patient, with labels of three classes and a view."""
    rng = np.random.default_rng(0)
    names = [f"{i:08d}.png" for i in range(rows)]
    tiny = root
    for i, name in enumerate(names):
        folder = root / f"images_{i // 1000:03d}"
        if i % 1000 == 0:
            folder.mkdir()
        if i % LINKS == 0:
            tiny = folder / name
            Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(tiny)
        else:
            os.link(tiny, folder / name)
    labels = {name: rng.integers(0, 2, rows) for name in ("Edema", "Mass", "Nodule")}
    patients = [f"p{i // 4}" for i in range(rows)]
    table = {"image": names, "patient": patients, "view": rng.choice(["PA", "AP"], rows), **labels}
    pd.DataFrame(table).to_csv(root / "T.csv", index=False)


def measure(root: Path, runs: Path) -> dict[str, float]:
    """Seconds of each phase; ``all checks`` is what a run does, the phases before it are parts of that, alone.

    In ``runs``, the folder of the trainer, the files are known from the second time on.
    """
    data = TableDataModule(str(root), str(root / "T.csv"), size=32)
    data.trainer = pl.Trainer(default_root_dir=str(runs), accelerator="cpu", logger=False, enable_checkpointing=False)
    seconds = {}
    start = time.perf_counter()
    reading = data.reading
    seconds["read and recognise"] = time.perf_counter() - start
    assert len(reading.table)
    start = time.perf_counter()
    found = find_below(root)
    seconds["find files"] = time.perf_counter() - start
    start = time.perf_counter()
    check_images(list(found.values()))
    seconds["open all images"] = time.perf_counter() - start
    for name, step in (("all checks", data.look), ("splits", data.setup), ("fingerprint", data.fingerprint)):
        start = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - start
    whole = ("read and recognise", "all checks", "splits", "fingerprint")
    return seconds | {"start-up": sum(seconds[name] for name in whole)}


def page(command: str, results: dict[int, list[dict[str, float]]]) -> str:
    """Write the results as a page."""
    lines = [
        "# Seconds until a table of one's own is ready",
        "",
        f"`{command}` at commit {origin.commit()}, {origin.machine()}, "
        f"pandas {pd.__version__}; median (least to most). Tiny PNGs in the page cache: no disk is waited for.",
        "",
        "| rows | round | " + " | ".join(PHASES) + " |",
        "|---" * (len(PHASES) + 2) + "|",
    ]
    for rows, rounds in results.items():
        for name, some in (("first", rounds[:1]), ("later", rounds[1:])):
            if some:
                cells = [spread([own[phase] for own in some], ".2f") for phase in PHASES]
                lines.append(f"| {rows:,} | {name} ({len(some)}) | " + " | ".join(cells) + " |")
    lines += [
        "",
        "`start-up` is reading, all checks, splits and fingerprint. Finding and opening are parts of the first run's",
        "checks, measured alone too; later runs below the same `default_root_dir` only ask the files' size and time.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all sizes and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 400_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*columns were recognised.*")
    results: dict[int, list[dict[str, float]]] = {}
    command = f"python -m benchmarks.table_scale --rows {' '.join(map(str, options.rows))} --rounds {options.rounds}"
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "data"
            runs = Path(folder) / "runs"
            root.mkdir()
            runs.mkdir()
            generate(root, rows)
            results[rows] = [measure(root, runs) for _ in range(options.rounds)]
        options.page.write_text(page(command, results))


if __name__ == "__main__":
    main()
