"""Time and memory of one call, for the benchmarks."""

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


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
