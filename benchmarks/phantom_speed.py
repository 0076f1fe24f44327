"""Images a second that SyntheticCXR renders on one core, masks and transform included.

Run: python -m benchmarks.phantom_speed
"""

import argparse
import statistics
import time

import cv2
import torch

from lightning_chex.data import SyntheticCXR


def rounds(dataset: SyntheticCXR, count: int, images: int) -> list[float]:
    """Images per second of each round; every round renders the same images."""
    dataset[0]  # the first call imports and allocates
    rates = []
    for _ in range(count):
        start = time.perf_counter()
        for index in range(images):
            dataset[index]
        rates.append(images / (time.perf_counter() - start))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=150)
    given = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print("| target | size | images/s, median | least | most |")
    print("|---|---|---|---|---|")
    for target in ("pathologies", "severity"):
        for size in (128, 224):
            rates = rounds(SyntheticCXR(given.images, size, target=target), given.rounds, given.images)
            print(f"| {target} | {size} | {statistics.median(rates):.0f} | {min(rates):.0f} | {max(rates):.0f} |")


if __name__ == "__main__":
    main()
