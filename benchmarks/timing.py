"""Time and memory of one call, for the benchmarks, and the share a network has in it."""

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def seconds_of(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Wall-clock seconds of ``run()`` with all device work done, and its result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def peak_gib(prepare: Callable[..., Callable[[], Any]], *arguments: Any, device: str = "cpu") -> float:
    """Memory in GiB that ``prepare(*arguments)()`` needs at its peak beyond what was in use before, in a fresh process.

    On a GPU what torch allocated on it; on a CPU the growth of the process's resident set.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure, (prepare, arguments, device))


def _measure(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], device: str) -> float:
    run = prepare(*arguments)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the preparation has freed but the allocator keeps would hide growth
    before = _status_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what came before
    run()
    return max(0.0, _status_kib("VmHWM") - before) / 2**20


def _status_kib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}: the memory benchmark needs Linux")


@dataclass(frozen=True)
class Cost:
    """Per image: seconds, those inside the network, copies it was given and passes they took."""

    seconds: float
    inside: float
    copies: float
    passes: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def times(self, count: float) -> "Cost":
        return Cost(*(count * value for value in vars(self).values()))


class Watched(nn.Module):
    """A network that counts the copies given to it and the seconds it takes."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.gpu = device.type == "cuda"
        processor = not self.gpu and torch.get_num_threads() == 1
        self.clock = time.process_time if processor else time.perf_counter
        self.reset()

    def reset(self) -> None:
        self.copies = self.passes = 0
        self.inside = 0.0
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.copies += len(images)
        self.passes += 1
        if self.gpu:  # by events, as waiting here would slow down what runs ahead
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            output = self.model(images)
            end.record()
            self.events.append((start, end))
            return output
        start_time = self.clock()
        output = self.model(images)
        self.inside += self.clock() - start_time
        return output

    def cost(self, run: Callable[[], Any], images: int) -> tuple[Cost, Any]:
        """What ``run()`` costs per image, and its result."""
        self.reset()
        if self.gpu:
            torch.cuda.synchronize()
        start = self.clock()
        result = run()
        if self.gpu:
            torch.cuda.synchronize()
        total = self.clock() - start
        inside = self.inside + sum(one.elapsed_time(other) / 1000 for one, other in self.events)
        return Cost(total / images, inside / images, self.copies / images, self.passes / images), result
