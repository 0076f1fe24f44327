"""Several processes that form one distributed run, each doing the same work."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_context = multiprocessing.get_context("forkserver")
# read once, not once a process; nothing there computes, so processes can be forked from it
_context.set_forkserver_preload(["lightning_chex.cli.main"])


def together(count: int, work: Callable[..., Any], folder: Path, *arguments: Any, seconds: float = 400) -> list[Any]:
    """Let ``count`` processes call ``work(*arguments)`` as one distributed run, and return what each of them gives.

    Args:
        count: how many.
        work: a function of a module; a Trainer it makes takes ``devices=count`` and ``strategy="ddp"``.
        folder: an empty one, for the results.
        arguments: of ``work``.
        seconds: after so long the processes are taken to wait for each other for ever, and ended.

    Raises:
        AssertionError: they did not all end well.
    """
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        _context.Process(target=_one, args=(rank, count, port, work, folder, arguments), daemon=True)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + seconds
    while any(p.is_alive() for p in processes) and not any(p.exitcode for p in processes) and time.monotonic() < end:
        time.sleep(0.05)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    assert codes == [0] * count, f"processes hang (None) or failed: {codes}"
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def _one(rank: int, count: int, port: int, work: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    # as a launcher such as torchrun does it
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save(work(*arguments), folder / f"{rank}.pt")
