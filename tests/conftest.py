import os
from pathlib import Path

import pytest

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
