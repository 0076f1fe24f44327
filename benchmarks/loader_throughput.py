"""Images a second from files of the publishers' sizes and from a prepared copy, and how long training waits for them.

Run: python -m benchmarks.loader_throughput

The files are phantoms: 8-bit PNG of 1024 x 1024 pixels, as NIH ChestX-ray8 has them, and 16-bit PNG of 3000 x 2500, in
place of DICOM files of that size. All are read once before the clock runs, so the disk's speed is not in the figures:
what is measured is decoding, resizing, augmenting and handing over, until the main process has the batch. A training
step is one of DenseNet-121 on this machine's processor; a second one, which leaves the processor alone for as long as a
GPU of a given speed would take, stands for a GPU.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import origin
from benchmarks.pages import spread
from lightning_chex.data import SyntheticCXR, TableDataModule
from lightning_chex.data.contract import Samples

SIZE = 224
BATCH = 32


class InTurn(Dataset[Any]):
    """``length`` samples of a data set, each of them in turn, so that few files make a long pass."""

    def __init__(self, dataset: Samples, length: int) -> None:
        self.dataset = dataset
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]


def write_files(folder: Path, count: int, sixteen_bit: bool) -> float:
    """Write phantoms with a table of one class; returns the mean size of a file in bytes."""
    folder.mkdir()
    drawn = SyntheticCXR(count, size=1024)
    rng = np.random.default_rng(0)
    rows = ["image,split,finding"]
    for index in range(count):
        grey = drawn.radiograph(index).pixels
        if sixteen_bit:  # 12 bits of signal with the noise of a detector, which is what makes such files large
            large = cv2.resize(grey, (2500, 3000), interpolation=cv2.INTER_CUBIC).astype(np.float32) * 16
            grey = np.clip(large + rng.normal(0, 8, large.shape), 0, 4095).astype(np.uint16)
        Image.fromarray(grey).save(folder / f"{index:03d}.png")
        rows.append(f"{index:03d}.png,{'val' if index < 2 else 'test' if index < 4 else 'train'},{index % 2}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return statistics.mean(path.stat().st_size for path in folder.glob("*.png"))


def opened(folder: Path, prepared: Path | None = None) -> TableDataModule:
    """Open the files as a training would: all but one in ten are its images, augmented."""
    data = TableDataModule(
        table=str(folder / "table.csv"),
        root=str(folder),
        size=SIZE,
        classes=["finding"],
        prepared=None if prepared is None else str(prepared),
    )
    data.setup("fit")
    return data


def loader_of(data: TableDataModule, length: int, workers: int) -> DataLoader[Any]:
    """Training batches, as ``train_dataloader`` makes them."""
    images = InTurn(data.readable(data.dataset("train"), "train split", replace=True), length)
    kept = workers > 0
    return DataLoader(images, BATCH, num_workers=workers, persistent_workers=kept, collate_fn=data.collate)


def images_per_second(loader: DataLoader[Any], rounds: int) -> list[float]:
    """Rates of whole passes, until a batch is at hand in the main process; the first starts the workers and is out."""
    rates = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        count = sum(len(batch["image"]) for batch in loader)
        if number:
            rates.append(count / (time.perf_counter() - start))
    return rates


def waiting_share(loader: DataLoader[Any], step: Callable[[Tensor], None], rounds: int) -> list[float]:
    """Share of the time of training that passes between a step and its next batch."""
    shares = []
    for _ in range(rounds):
        batches: Iterator[Any] = iter(loader)
        step(next(batches)["image"])
        waited = 0.0
        start = time.perf_counter()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            step(batch["image"])
        shares.append(waited / (time.perf_counter() - start))
    return shares


def network_step() -> Callable[[Tensor], None]:
    """Forward, backward and optimiser step of DenseNet-121 on the processor."""
    model = timm.create_model("densenet121", num_classes=8).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step(batch: Tensor) -> None:
        optimizer.zero_grad()
        model(batch.to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gpu_rate", type=float, default=500.0, help="images a second of the GPU that is stood for")
    given = parser.parse_args()
    print(f"`{origin.command('benchmarks.loader_throughput')}` at commit {origin.commit()}")
    print(f"on {origin.machine()}, OpenCV {cv2.__version__}; {given.rounds} rounds, median (least to most).\n")
    print("| files | read from | no worker | 1 worker | 2 workers | 2 over 1 | waits, CPU | waits, GPU |")
    print("|---|---|---|---|---|---|---|---|")
    steps = [network_step(), lambda batch: time.sleep(len(batch) / given.gpu_rate)]
    with tempfile.TemporaryDirectory() as scratch:
        for name, count, sixteen_bit in [("PNG 1024 x 1024", 28, False), ("16-bit PNG 3000 x 2500", 12, True)]:
            folder = Path(scratch) / name
            size = write_files(folder, count, sixteen_bit)
            begun = time.perf_counter()
            with redirect_stdout(sys.stderr):
                copy = opened(folder).prepare(Path(scratch) / f"copy of {name}", SIZE, workers=2)
            took = time.perf_counter() - begun
            for source, prepared, length in [("files", None, 2 * BATCH), ("prepared copy", copy, 128 * BATCH)]:
                data = opened(folder, prepared)
                loaders = {n: loader_of(data, length * max(n, 1), n) for n in (0, 1, 2)}
                rates = [images_per_second(loader, given.rounds) for loader in loaders.values()]
                ratio = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
                waits = [
                    waiting_share(loader_of(data, length // part, 2), step, given.rounds)
                    for step, part in zip(steps, (max(1, length // BATCH // 4), 1), strict=True)
                ]
                cells = [*(spread(rate, ".0f") for rate in rates), spread(ratio, ".2f")]
                cells += [spread(share, ".0%") for share in waits]
                print(f"| {name} | {source} | {' | '.join(cells)} |", flush=True)
            print(f"<!-- {name}: {size / 1e6:.2f} MB a file, prepared at {count / took:.0f} images/s -->", flush=True)


if __name__ == "__main__":
    main()
