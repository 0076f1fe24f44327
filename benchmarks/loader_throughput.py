"""Images a second from files of the publishers' sizes and from a prepared copy, and how long training waits for them.

Run: python benchmarks/loader_throughput.py

The files are phantoms: 8-bit PNG of 1024 x 1024 pixels, as NIH ChestX-ray8 has them, and 16-bit PNG of 3000 x 2500, in
place of DICOM files of that size. All are read once before the clock runs, so the disk's speed is not in the figures:
what is measured is decoding, resizing and augmenting. A training step is one of DenseNet-121 on this machine's
processor; a second one, which leaves the processor alone for as long as a GPU of a given speed would take, stands for a
GPU.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lightning_chex.data import ImageTransform, SyntheticCXR
from lightning_chex.data.files.images import ImageReader, read_grey
from lightning_chex.data.prepared.preparing import prepare_copy
from lightning_chex.data.prepared.reading import open_prepared

SIZE = 224


class Files(Dataset[torch.Tensor]):
    """Augmented training images from files, ``length`` of them, each file in turn."""

    def __init__(self, paths: list[str], read: ImageReader, length: int) -> None:
        self.paths, self.read, self.length = paths, read, length
        self.transform = ImageTransform(SIZE, augment=True)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(self.read(self.paths[index % len(self.paths)]))["image"]


def write_files(folder: Path, count: int, sixteen_bit: bool) -> dict[str, str]:
    """Write phantoms and return their paths by image id."""
    folder.mkdir()
    drawn = SyntheticCXR(count, size=1024)
    rng = np.random.default_rng(0)
    paths = {}
    for index in range(count):
        grey = drawn.radiograph(index).pixels
        if sixteen_bit:  # 12 bits of signal with the noise of a detector, which is what makes such files large
            large = cv2.resize(grey, (2500, 3000), interpolation=cv2.INTER_CUBIC).astype(np.float32) * 16
            grey = np.clip(large + rng.normal(0, 8, large.shape), 0, 4095).astype(np.uint16)
        path = folder / f"{index:03d}.png"
        Image.fromarray(grey).save(path)
        paths[path.stem] = str(path)
    return paths


def images_per_second(files: Files, workers: int, rounds: int) -> list[float]:
    """Rates of whole passes, the start of the workers included."""
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        count = sum(len(batch) for batch in DataLoader(files, batch_size=8, num_workers=workers))
        rates.append(count / (time.perf_counter() - start))
    return rates


def waiting_share(files: Files, workers: int, step: Callable[[torch.Tensor], None], rounds: int) -> list[float]:
    """Share of the time of training that passes between a step and its next batch."""
    shares = []
    for _ in range(rounds):
        batches: Iterator[torch.Tensor] = iter(DataLoader(files, batch_size=8, num_workers=workers))
        step(next(batches))
        waited, start = 0.0, time.perf_counter()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            step(batch)
        shares.append(waited / (time.perf_counter() - start))
    return shares


def network_step() -> Callable[[torch.Tensor], None]:
    """Forward, backward and optimiser step of DenseNet-121 on the processor."""
    model = timm.create_model("densenet121", num_classes=8).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step(batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        model(batch.to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()

    return step


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, OpenCV {cv2.__version__}"
    return f"{os.cpu_count()} cores of {name}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu_rate", type=float, default=500.0, help="images a second of the GPU that is stood for")
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    print(f"`python {' '.join(['benchmarks/loader_throughput.py', *sys.argv[1:]])}` at commit {commit.stdout.strip()}")
    print(f"on {machine()}; {given.rounds} rounds, median (least to most).\n")
    print(f"| files | read from | images/s, no worker | {given.workers} workers | waits, DenseNet-121 | waits, GPU |")
    print("|---|---|---|---|---|---|")
    steps = {"network": network_step(), "gpu": lambda batch: time.sleep(len(batch) / given.gpu_rate)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, count, sixteen_bit in [("PNG 1024 x 1024", 24, False), ("16-bit PNG 3000 x 2500", 8, True)]:
            sources = write_files(Path(scratch) / name, count, sixteen_bit)
            begun = time.perf_counter()
            with redirect_stdout(sys.stderr):
                copy = prepare_copy(sources, read_grey, Path(scratch) / f"copy of {name}", SIZE, given.workers)
            took = time.perf_counter() - begun
            kept = open_prepared(copy, SIZE, sources, read_grey)
            for origin, read, length in [
                ("files", read_grey, 48 if sixteen_bit else 96),
                ("prepared copy", kept, 2000),
            ]:
                paths = list(sources.values())
                alone, shared = (
                    images_per_second(Files(paths, read, length), workers, given.rounds)
                    for workers in (0, given.workers)
                )
                waits = [
                    waiting_share(Files(paths, read, length), given.workers, step, rounds)
                    for step, length, rounds in [
                        (steps["network"], 40, min(given.rounds, 2)),
                        (steps["gpu"], length, given.rounds),
                    ]
                ]
                cells = [spread(alone, ".0f"), spread(shared, ".0f"), *(spread(share, ".0%") for share in waits)]
                print(f"| {name} | {origin} | {' | '.join(cells)} |", flush=True)
            size = statistics.mean(os.path.getsize(path) for path in sources.values())
            print(f"<!-- {name}: {size / 1e6:.2f} MB a file, prepared at {count / took:.0f} images/s -->", flush=True)


if __name__ == "__main__":
    main()
