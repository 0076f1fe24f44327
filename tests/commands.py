"""What tests of the command line share."""

from pathlib import Path

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
