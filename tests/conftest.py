import os
import sys
from pathlib import Path

import pytest

# networks this small gain nothing from threads, and lose much where several programs share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

# the libraries' own networking stays silent in tests: nothing here needs it
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")


@pytest.fixture(scope="session")
def chex_data() -> Path:
    """Root of the real X-ray samples; a test that asks for it is skipped where they are not at hand."""
    root = os.environ.get("CHEX_DATA")
    if not root:
        pytest.skip("CHEX_DATA is not set: no real X-rays at hand")
    return Path(root)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty home and working folder, where whatever is written would be seen; the environment comes back."""
    environment = dict(os.environ)
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(autouse=True)
def no_run_is_left_open():
    """End the W&B run that a refused or interrupted command has left: the next one of the process would go on in it."""
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
