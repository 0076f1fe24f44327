"""Origin of a measurement: command, commit and machine, as every results page states them."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch


def commit() -> str:
    """Return the short hash of the checked-out commit, with ``+`` where tracked files differ from it.

    Returns:
        Such as ``3fd24cb`` or ``3fd24cb+``.

    Raises:
        subprocess.CalledProcessError: the working folder is no git checkout, so a result could not name its code.
    """
    head = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{head}+" if changed else head


def command(module: str, shortened: Mapping[str, str] | None = None) -> str:
    """Return the command line that runs ``module`` with this process's arguments.

    Args:
        module: dotted name, such as ``benchmarks.attribution_speed``.
        shortened: arguments to be replaced, such as the path of a checkpoint by ``CKPT``: results pages hold no path
            of the machine they were made on.
    """
    replacements = shortened or {}
    arguments = [replacements.get(argument, argument) for argument in sys.argv[1:]]
    return " ".join(["python -m", module, *arguments])


def machine(device: str | torch.device = "cpu") -> str:
    """Return the processor or GPU, its load, the threads in use, and the versions of Python and torch."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {versions}"
    # Timings on a shared machine cannot be read without its load.
    load = f"load average {os.getloadavg()[0]:.1f} at the start"
    threads = f"{torch.get_num_threads()} thread(s) of {os.cpu_count()} logical cores"
    return f"{threads}, {_processor_name()}, {versions}, {load}"


def _processor_name() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    for line in lines:
        if "model name" in line:
            return line.split(":")[1].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
