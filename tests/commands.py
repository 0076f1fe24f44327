"""What tests of the command line share."""

from pathlib import Path

import pytest

from lightning_chex.cli.main import main

CONFIGS = Path(__file__).parent.parent / "configs"

TINY = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--data.size=64",
    "--data.batch_size=4",
    "--data.num_workers=0",
]


def written(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def the_error(capsys, *arguments: str) -> str:
    """Run, and return the one line that standard error ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "\n".join(lines) and [line for line in lines if line.startswith("error:")] == lines[-1:]
    assert not any("usage:" in line for line in lines)
    return lines[-1]
